"""kill -9 of the driver of a search with `front`, between two points and inside one: it ends as if nothing had been."""

from __future__ import annotations

import os
import signal
import time
from pathlib import Path

import pytest

from faar_ray.bench.faults.search_harness import SPACE, SearchHarness, SearchRecord
from faar_ray.config.trial import merge_sections
from faar_ray.records import MEASURED
from faar_ray.report.results import read_results
from faar_ray.report.source import find_run

pytestmark = [pytest.mark.faults, pytest.mark.timeout(2000)]
LIMIT_S = 900.0
FRONT = {
    "base": merge_sections(SPACE["base"], {"ranks": {"kind": "fixed"}, "spectral": {"score_batches": 2}}),
    "parameters": {"optim.lr": {"min": 1e-3, "max": 1e-2, "prior": 2e-3}},
    "objectives": [{"name": "delta_m", "goal": "maximize"}, {"name": "params/adapters", "goal": "minimize"}],
    "front": {"sizes": [0.45, 0.6, 0.8], "forks": {0.45: 0.5, 0.6: 0.75, 0.8: 1.0}},
    "search": {"startup_trials": 2},
    "scheduler": {"type": "none"},
    "budget": {"trials": 2},
    "controls": [],
}
MOMENTS = {
    "after a point has ended": "point/t000-s0-45pct",
    "after the last point but one": "point/t000-s0-60pct",
    "in a point that trains": "begun/t000-s0-60pct",
    "when the trunk has ended": '"result"',
}
"""What the journal holds then."""


@pytest.fixture(scope="module")
def harness(tmp_path_factory: pytest.TempPathFactory) -> SearchHarness:
    return SearchHarness(tmp_path_factory.mktemp("front"), file="front.yaml", **FRONT)


@pytest.fixture(scope="module")
def undisturbed(harness: SearchHarness) -> SearchRecord:
    harness.finish(harness.start("whole"), "whole", LIMIT_S)
    record = harness.record("whole")
    assert len(record.rows) == 8
    return record


def wait_for(journal: Path, text: str) -> None:
    deadline = time.monotonic() + LIMIT_S
    while not journal.is_file() or text not in journal.read_text():
        assert time.monotonic() < deadline
        time.sleep(0.02)


@pytest.mark.parametrize(
    "moment", [pytest.param(m, marks=[] if m == "in a point that trains" else pytest.mark.nightly) for m in MOMENTS]
)
def test_a_killed_search_loses_no_point_and_trains_none_twice(
    harness: SearchHarness, undisturbed: SearchRecord, moment: str
) -> None:
    name = moment.replace(" ", "-")
    driver = harness.start(name)
    wait_for(harness.run(name) / "study.log", MOMENTS[moment])
    os.kill(driver.pid, signal.SIGKILL)
    driver.wait(60)
    log = (harness.run(name) / "study.log").read_text()
    assert "point/t001" not in log, "the kill came too late"

    harness.finish(harness.start(name, "--resume"), name, LIMIT_S)
    assert harness.record(name).equal(undisturbed)
    assert harness.leaks(name) == []


def test_points_in_a_bucket_begin_with_trunks_that_train_on(
    harness: SearchHarness, undisturbed: SearchRecord, s3: str
) -> None:
    here = (f"storage.path={s3}/runs", "resources.max_concurrent=2")
    harness.finish(harness.start("bucket", *here), "bucket", LIMIT_S)
    rows = read_results(find_run(f"{s3}/runs/bucket").path / "results.parquet")
    timeless = {r.trial_id: {k: v for k, v in r.metrics.items() if not k.startswith(MEASURED)} for r in rows}
    found = {r.trial_id: (r.state, r.seed, r.params, r.epochs, timeless[r.trial_id]) for r in rows}
    assert found == undisturbed.rows
