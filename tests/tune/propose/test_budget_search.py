"""A real search that a budget of time ends, and that goes on when there is more; its scheduler stops real trials."""

from __future__ import annotations

import time
from collections.abc import Callable
from pathlib import Path

import pytest

from faar_ray.records import TrialResult
from faar_ray.report.results import read_results
from faar_ray.tune.propose.journal import open_journal, spent
from faar_ray.tune.space.space import read_space
from tests.commands import run_tune

pytestmark = [pytest.mark.timeout(1500), pytest.mark.slow]  # seconds; two minutes where nothing else runs


def test_time_ends_a_search_and_says_how_to_go_on(tmp_path: Path, space_file: Callable[..., Path]) -> None:
    space_file(
        tmp_path / "space.yaml", budget={"trials": 500}, search={"sampler": "random"}, scheduler={"type": "none"}
    )
    done = run_tune(tmp_path, "budget.time=40s")
    assert done.returncode in (0, 4), done.stderr  # 4: so slow a machine that no trial was complete by then
    assert "The search ended early: budget.time 40s was reached after" in done.stdout
    assert "budget.time=MORE --resume" in done.stdout


@pytest.mark.nightly
def test_time_ends_a_search_that_resumes_without_its_downtime(tmp_path: Path, space_file: Callable[..., Path]) -> None:
    """As often as it takes until two drivers have trained something and a trial was stopped by the median."""
    rule = {"type": "median", "min_trials": 1, "min_epochs": 1}
    space_file(tmp_path / "space.yaml", budget={"trials": 500}, search={"sampler": "random"}, scheduler=rule)
    run = tmp_path / "runs" / "tiny"
    ended: dict[str, TrialResult] = {}
    counted, productive = 0.0, 0
    for seconds in range(40, 400, 40):
        begun = time.monotonic()
        done = run_tune(tmp_path, f"budget.time={seconds}s", *["--resume"] * run.exists())
        passed = time.monotonic() - begun
        assert done.returncode in (0, 4), done.stderr  # 4: so slow a machine that no trial was complete by then
        assert f"The search ended early: budget.time {seconds}s was reached after" in done.stdout
        assert "budget.time=MORE --resume" in done.stdout
        before, ended = ended, {result.trial_id: result for result in read_results(run / "results.parquet")}
        assert {name: ended[name] for name in before} == before
        space = read_space(run / "space.yaml")
        was, counted = counted, spent(open_journal(run / "study.log", space.name, space.objectives)).get("elapsed_s", 0)
        assert counted <= was + passed  # what lay between was not counted
        reasons = [result.reason for result in ended.values() if result.state == "PRUNED"]
        assert all(reason.startswith(("budget.time", "best delta_m")) for reason in reasons)
        productive += len(ended) > len(before)
        if productive >= 2 and any("median of" in reason for reason in reasons):
            return
        time.sleep(2)
    pytest.fail("no second driver trained anything, or no trial was stopped")
