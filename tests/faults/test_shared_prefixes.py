"""kill -9 of the driver of a search that shares prefixes: each trial ends as it would alone, undisturbed."""

from __future__ import annotations

import signal
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from optuna.storages import JournalStorage
from optuna.storages.journal import JournalFileBackend

from faar_ray.bench.faults.search_harness import SPACE, SearchHarness, SearchRecord
from faar_ray.report.progress import PREFIX
from faar_ray.report.results import read_results

pytestmark = [pytest.mark.faults, pytest.mark.timeout(1200)]

MARK_OF_FIRST_EPOCH = "trials/p000-s0/checkpoints/epoch_0000.pt"


def harness_of(folder: Path, *, share: bool) -> SearchHarness:
    """Three rhos that part at the end of epoch 2 of 4, and a control that differs from the start."""
    over: dict[str, Any] = {
        "base": {**SPACE["base"], "pdrs": {"start_epoch": 2}},
        "parameters": {"pdrs.rho_shared": {"values": [0.4, 0.7, 0.9]}},
        "search": {"sampler": "grid", "share_prefixes": share},
        "scheduler": {"type": "none"},
    }
    return SearchHarness(folder, file=f"share-{share}.yaml", **over)


def wait_for(happened: Callable[[], bool]) -> None:
    deadline = time.monotonic() + 600
    while not happened():
        assert time.monotonic() < deadline
        time.sleep(0.05)


def is_trained(journal: Path) -> bool:
    """Whether the journal says that the prefix is there."""
    if not journal.is_file():
        return False
    text = journal.read_text()
    if f'"{PREFIX}p000-s0"' not in text:
        return False
    storage = JournalStorage(JournalFileBackend(str(journal)))
    attrs = storage.get_study_user_attrs(storage.get_all_studies()[0]._study_id)
    return bool(attrs.get(f"{PREFIX}p000-s0", {}).get("state") == "trained")


def found(record: SearchRecord) -> dict[str, Any]:
    """What may not differ: all but the epochs that a row counts."""
    return {name: (state, seed, params, metrics) for name, (state, seed, params, _, metrics) in record.rows.items()}


def test_a_driver_killed_in_a_prefix_or_before_its_forks_loses_nothing(tmp_path: Path, own_cache: Path) -> None:
    alone = harness_of(tmp_path, share=False)
    alone.finish(alone.start("alone"), "alone", 600)
    whole, shared = alone.record("alone"), harness_of(tmp_path, share=True)
    moments: dict[str, Callable[[Path], bool]] = {
        "in-the-prefix": lambda run: (run / MARK_OF_FIRST_EPOCH).is_file(),
        "before-the-forks": lambda run: is_trained(run / "study.log"),
    }

    for name, happened in moments.items():
        driver, run = shared.start(name), shared.run(name)
        wait_for(lambda now=happened, at=run: now(at))  # type: ignore[misc]
        driver.send_signal(signal.SIGKILL)
        driver.wait()
        shared.finish(shared.start(name, "--resume"), name, 600)

        record = shared.record(name)
        assert found(record) == found(whole), name
        assert record.trace.equals(whole.trace)
        assert {path.name for path in (run / "trials").iterdir()} == set(record.rows)
        assert shared.leaks(name) == []
        results = read_results(run / "results.parquet")
        trials = [result for result in results if result.role == "trial"]
        assert {result.parent for result in trials} == {"p000-s0"}
        assert sum(result.epochs for result in trials) == 3 + 3 * 1
