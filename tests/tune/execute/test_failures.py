"""Trials that diverge, cannot allocate, or are killed: how the failure is reported, and that the search goes on."""

from __future__ import annotations

import json
import re
import subprocess
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from mlflow import MlflowClient

from faar_ray.records import TrialResult
from faar_ray.report.results import read_results
from faar_ray.tune.execute.failures import reason_of_failure
from faar_ray.tune.propose.journal import open_journal
from faar_ray.tune.propose.journal import results as journalled
from faar_ray.tune.run.jobs import describe_failure
from faar_ray.tune.space.space import SearchSpace
from tests.commands import run_tune

KILLED = """Failure # 1 (occurred at 2030-01-01_00-00-00)
The actor died unexpectedly before finishing this task.
\tclass_name: TrialActor
The actor is dead because its worker process has died. Worker exit type: SYSTEM_ERROR Worker exit detail: Worker
unexpectedly exits with a connection error code 2. End of file.
"""
ALLOCATION = """Failure # 1 (occurred at 2030-01-01_00-00-00)
ray::TrialActor.train() (pid=1)
  File "step.py", line 1, in step
RuntimeError: [enforce fail at alloc_cpu.cpp:127] err == 0. DefaultCPUAllocator: can't allocate memory: you tried to \
allocate 4000 bytes. Error code 12 (Cannot allocate memory)
"""


@pytest.mark.parametrize(
    ("report", "message"),
    [
        (KILLED, "its process was killed, most likely by the system because memory ran out"),
        ("", "its process was killed"),
        (ALLOCATION, "DefaultCPUAllocator: can't allocate memory: you tried to allocate 4000 bytes"),
        ("x\ntorch.OutOfMemoryError: CUDA out of memory. Tried to allocate 2 GiB\n", "CUDA out of memory. Tried"),
        ("  File 'a', line 3\nMemoryError\n", "out of memory: an allocation failed (MemoryError); lower"),
        ("Ray killed 1 worker(s) based on the killing policy\nRefer to https://docs", "Ray ended the trial's process"),
        ("Failure # 1\nMemoryError\nFailure # 2\n  File 'a'\nKeyError: 'x'\n", "KeyError: 'x'"),
    ],
)
def test_a_failure_is_told_in_one_sentence(report: str, message: str) -> None:
    reason = reason_of_failure(report)
    assert message in reason
    assert "\n" not in reason


def test_the_number_of_attempts_and_the_trial_are_named() -> None:
    reason = describe_failure(reason_of_failure(KILLED, 3), "t001-s0", {"optim.lr": 1e30, "method": "faar"})
    assert reason.endswith("(tried 3 times) [t001-s0: optim.lr 1e+30, method faar]")


Search = Callable[..., tuple[subprocess.CompletedProcess[str], Path]]


@pytest.fixture
def search(tmp_path: Path, space_file: Callable[..., Path]) -> Search:
    """Runs a small real search to its end."""

    def run(*arguments: str, env: dict[str, str] | None = None, **over: Any) -> Any:
        space_file(tmp_path / "space.yaml", **over)
        done = run_tune(tmp_path, *arguments, env=env)
        assert "Traceback" not in done.stderr
        return done, tmp_path / "runs" / "tiny"

    return run


def diverging(trials: int) -> dict[str, Any]:
    points = [{"optim.lr": lr} for lr in (1e30, 5e-4, 1e29, 1e28)[:trials]]
    return {
        "base": {"optim": {"epochs": 2, "warmup_steps": 0}},
        "parameters": {"optim.lr": {"values": [5e-4, 1e30, 1e29, 1e28]}},
        "search": {"sampler": "points"},
        "warm_start": {"points": points},
        "budget": {"trials": trials},
        "resources": {"max_concurrent": 1},
        "scheduler": {"type": "none"},
    }


def told_everywhere(folder: Path, result: TrialResult, space: SearchSpace) -> None:
    """The reason is in the results, the journal and MLflow."""
    study = open_journal(folder / "study.log", space.name, space.objectives)
    (journal,) = [r for r in journalled(study) if r.trial_id == result.trial_id]
    assert (journal.state, journal.reason) == ("FAIL", result.reason)
    run = MlflowClient(f"sqlite:///{folder.parent.parent / 'mlflow.db'}").get_run(result.run_id)
    assert (run.info.status, run.data.tags["faar_ray.state"]) == ("FAILED", "FAIL")
    assert run.data.tags["faar_ray.reason"] == result.reason


@pytest.mark.slow
def test_a_diverging_trial_is_named_not_retried_and_the_search_goes_on(
    search: Search, space: Callable[..., SearchSpace]
) -> None:
    done, folder = search(**diverging(2))
    assert done.returncode == 0, done.stderr
    bad, good = read_results(folder / "results.parquet")
    assert (bad.state, good.state) == ("FAIL", "COMPLETE")
    assert bad.reason.startswith("step 1: the loss of ")
    assert " is nan [t000-s0: optim.lr 1e+30" in bad.reason
    assert re.search(rf"t000-s0 +failed in \d+:\d\d: {re.escape(bad.reason)}", done.stdout)
    assert "tried" not in bad.reason
    told_everywhere(folder, bad, space(**diverging(2)))


@pytest.mark.slow
def test_too_many_diverging_trials_are_exit_3_with_results_and_report(search: Search) -> None:
    done, folder = search("--json", "-q", "failure.max_failures=1", **diverging(4))
    assert done.returncode == 3, done.stderr
    states = [result.state for result in read_results(folder / "results.parquet")]
    assert states == ["FAIL", "COMPLETE", "FAIL"]
    assert (folder / "report" / "index.html").is_file()
    assert json.loads(done.stdout)["trials"] == {"complete": 1, "pruned": 0, "failed": 2}
    assert "2 trials failed, failure.max_failures is 1; the last: step 1: the loss of" in done.stderr
    assert "[t002-s0: optim.lr 1e+29" in done.stderr


@pytest.mark.slow
def test_an_allocation_that_cannot_be_is_tried_again_and_told(
    search: Search, space: Callable[..., SearchSpace]
) -> None:
    huge = {
        "parameters": {"decoder.width": {"values": [32, 400_000_000]}},
        "search": {"sampler": "points"},
        "warm_start": {"points": [{"decoder.width": 400_000_000}, {"decoder.width": 32}]},
        "budget": {"trials": 2},
        "failure": {"max_retries": 1},
        "base": {"optim": {"epochs": 1}},
        "resources": {"max_concurrent": 1},
        "scheduler": {"type": "none"},
    }
    done, folder = search(**huge)
    assert done.returncode == 0, done.stderr
    bad, good = read_results(folder / "results.parquet")
    assert (bad.state, good.state) == ("FAIL", "COMPLETE")
    assert bad.reason.startswith("out of memory: an allocation failed (DefaultCPUAllocator: can't allocate memory")
    assert bad.reason.endswith("(tried 2 times) [t000-s0: decoder.width 400000000]")
    assert bad.reason in done.stdout
    told_everywhere(folder, bad, space(**huge))


@pytest.mark.faults
@pytest.mark.timeout(600)
def test_trials_that_rays_memory_monitor_ends_are_told_as_such(search: Search) -> None:
    """The monitor ends only processes of its own Ray, as if the machine were full."""
    full = {"RAY_memory_usage_threshold": "0.01", "RAY_memory_monitor_refresh_ms": "100"}
    began = time.monotonic()
    over = {"budget": {"trials": 2}, "failure": {"max_retries": 1, "max_failures": 0}}
    done, folder = search(env=full, **over)
    assert done.returncode == 3, done.stderr + done.stdout
    print(f"{time.monotonic() - began:.0f} s")
    bad = read_results(folder / "results.parquet")[0]
    assert bad.reason.startswith("out of memory: the machine was nearly full and Ray ended the trial's process; lower")
    assert "(tried 2 times)" in bad.reason
