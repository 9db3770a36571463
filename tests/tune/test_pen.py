"""MLflow's writer thread: what it writes in which order, and what happens when it cannot."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any, cast

import pytest

from faar_ray.errors import ConfigError
from faar_ray.records import TrialResult
from faar_ray.tracking.mlflow_writer import Tracker
from faar_ray.tune.jobs import Job
from faar_ray.tune.pen import Pen
from faar_ray.tune.space import SearchSpace


class Recorder:
    """Stands in for the tracker and notes every call."""

    parent = "parent"

    def __init__(self, broken: bool = False) -> None:
        self.calls: list[tuple[Any, ...]] = []
        self.broken = broken
        self.known: dict[str, str] = {}

    def start_trial(self, trial_id: str, config: Any, params: Any, role: str, run_id: str | None = None) -> str:
        self._note("start", trial_id, role, run_id)
        return run_id or f"run-{trial_id}"

    def log_epoch(self, run_id: str, epoch: int, metrics: Any) -> None:
        self._note("epoch", run_id, epoch)

    def log_final(self, run_id: str, metrics: Any) -> None:
        self._note("final", run_id, metrics)

    def end_trial(self, run_id: str, state: str, **facts: Any) -> None:
        self._note("end", run_id, state)

    def tag(self, run_id: str, tags: Any) -> None:
        self._note("tag", run_id, tags)

    def runs_of(self, parent: str) -> dict[str, str]:
        return dict(self.known)

    def end_search(self, state: str, report: Path | None) -> None:
        self._note("end search", state)

    def running(self, parent: str) -> set[str]:
        return {"t001-s0"}

    def _note(self, *call: Any) -> None:
        if self.broken:
            raise OSError("database is locked")
        self.calls.append(call)


@pytest.fixture
def job(space: Callable[..., SearchSpace]) -> Job:
    return Job("t000-s0", "trial", space().trial_config({}), {"pdrs.rho_shared": 0.95}, 0)


def result(name: str) -> TrialResult:
    return TrialResult(name, "abc", 0, "trial", "COMPLETE", {}, {"delta_m": 1.0}, 1.0, 3)


def pen(tracker: Recorder, folder: Path, runs: dict[str, str] | None = None) -> tuple[Pen, list[str]]:
    said: list[str] = []
    tracker.known = runs or {}
    return Pen(lambda: cast(Tracker, tracker), folder, said.append), said


def test_calls_are_written_in_the_order_they_came(job: Job, tmp_path: Path) -> None:
    tracker = Recorder()
    writer, said = pen(tracker, tmp_path)
    writer.started(job)
    writer.epoch(job, 0, {"delta_m": 1.0})
    writer.ended(job, result("t000-s0"))
    writer.tested("t000-s0", {"test/delta_m": 2.0})
    writer.end_search("FINISHED")
    assert [call[0] for call in tracker.calls] == ["start", "epoch", "end", "final", "end search"]
    assert writer.run_id("t000-s0") == "run-t000-s0"
    assert said == []


def test_a_database_that_is_away_is_said_once_and_stops_nothing(job: Job, tmp_path: Path) -> None:
    writer, said = pen(Recorder(broken=True), tmp_path)
    writer.started(job)
    for epoch in range(5):
        writer.epoch(job, epoch, {})
    writer.ended(job, result("t000-s0"))
    writer.end_search("FINISHED")
    assert said == ["MLflow cannot be written (database is locked); the search goes on without it"]
    assert writer.failures == 8


def test_only_what_a_killed_driver_left_open_or_unwritten_is_completed(job: Job, tmp_path: Path) -> None:
    tracker = Recorder()
    writer, _ = pen(tracker, tmp_path, {"t000-s0": "closed", "t001-s0": "open"})
    names = ("t000-s0", "t001-s0", "t002-s0")
    writer.reconcile([(Job(name, "trial", job.config, {}, 0), result(name)) for name in names])
    writer.end_search("FINISHED")
    assert [call[:2] for call in tracker.calls] == [
        ("start", "t001-s0"),
        ("epoch", "open"),
        ("end", "open"),
        ("start", "t002-s0"),
        ("epoch", "run-t002-s0"),
        ("end", "run-t002-s0"),
        ("end search", "FINISHED"),
    ]


def test_a_cached_reference_is_tagged(job: Job, tmp_path: Path) -> None:
    tracker = Recorder()
    writer, _ = pen(tracker, tmp_path)
    writer.started(Job("ref-semseg", "reference", job.config, {}, cached=True))
    writer.end_search("FINISHED")
    assert tracker.calls[1] == ("tag", "run-ref-semseg", {"faar_ray.cached": "true"})


def test_a_tracker_that_cannot_be_opened_is_an_error_for_whoever_needs_it(tmp_path: Path) -> None:
    def refuse() -> Tracker:
        raise ConfigError("tracking.uri: no such server")

    writer = Pen(refuse, tmp_path, print)
    with pytest.raises(ConfigError, match="no such server"):
        assert writer.tracker
    writer.end_search("FAILED")
