"""MLflow's writer thread: what it writes in which order, and what happens when it cannot."""

from __future__ import annotations

import math
from collections.abc import Callable
from pathlib import Path
from typing import Any, cast

import pytest
from mlflow.exceptions import MlflowException
from mlflow.protos.databricks_pb2 import RESOURCE_DOES_NOT_EXIST

from faar_ray.errors import ConfigError
from faar_ray.records import EpochRecord, TrialResult
from faar_ray.tracking.files.epoch_file import write_epochs
from faar_ray.tracking.mlflow.writer import Child, Tracker
from faar_ray.tune.run.jobs import Job
from faar_ray.tune.show.mlflow_watcher import Pen
from faar_ray.tune.space.space import SearchSpace


class Recorder:
    """Stands in for the tracker and notes every call; `broken` calls fail first."""

    parent, uri = "parent", "sqlite:///mlflow.db"

    def __init__(self, broken: float = 0, fault: Exception | None = None) -> None:
        self.calls: list[tuple[Any, ...]] = []
        self.broken, self.fault = broken, fault or OSError("database is locked")
        self.known: dict[str, Child] = {}

    def start_trial(self, trial_id: str, config: Any, params: Any, role: str, run_id: str | None = None) -> str:
        self._note("start", trial_id, role, run_id)
        return run_id or f"run-{trial_id}"

    def log_epoch(self, run_id: str, epoch: int, metrics: Any, at: float | None = None) -> None:
        self._note("epoch", run_id, epoch)

    def log_final(self, run_id: str, metrics: Any) -> None:
        self._note("final", run_id, metrics)

    def end_trial(self, run_id: str, state: str, **facts: Any) -> None:
        self._note("end", run_id, state, facts["epochs"])

    def tag(self, run_id: str, tags: Any) -> None:
        self._note("tag", run_id, tags)

    def runs_of(self, parent: str) -> dict[str, str]:
        return {name: child.run_id for name, child in self.known.items()}

    def children(self, parent: str) -> dict[str, Child]:
        return dict(self.known)

    def end_search(self, state: str, report: Path | None) -> None:
        self._note("end search", state)

    def _note(self, *call: Any) -> None:
        if self.broken > 0:
            self.broken -= 1
            raise self.fault
        self.calls.append(call)


@pytest.fixture
def job(space: Callable[..., SearchSpace]) -> Job:
    return Job("t000-s0", "trial", space().trial_config({}), {"pdrs.rho_shared": 0.95}, 0)


def result(name: str) -> TrialResult:
    return TrialResult(name, "abc", 0, "trial", "COMPLETE", {}, {"delta_m": 1.0}, 1.0, 3)


def child(run_id: str, status: str, epochs: int = 3) -> Child:
    tags = {"faar_ray.state": "COMPLETE", "faar_ray.epochs": str(epochs)}
    return Child(run_id, status, tags, frozenset({"delta_m"}))


def pen(tracker: Recorder, folder: Path) -> tuple[Pen, list[str]]:
    said: list[str] = []
    return Pen(lambda: cast(Tracker, tracker), folder, said.append), said


def with_epochs(folder: Path, name: str, epochs: int) -> None:
    write_epochs(folder / "trials" / name / "epochs.parquet", [EpochRecord(e, {"delta_m": 1.0}) for e in range(epochs)])


def test_calls_are_written_in_the_order_they_came(job: Job, tmp_path: Path) -> None:
    tracker = Recorder()
    writer, said = pen(tracker, tmp_path)
    with_epochs(tmp_path, "t000-s0", 1)
    writer.started(job)
    writer.epoch(job, 0, {"delta_m": 1.0})
    writer.ended(job, result("t000-s0"))
    writer.tested("t000-s0", {"test/delta_m": 2.0})
    assert writer.end_search("FINISHED") == 0
    assert [call[0] for call in tracker.calls] == ["start", "epoch", "epoch", "end", "final", "end search"]
    assert writer.run_id("t000-s0") == "run-t000-s0"
    assert said == []


def test_a_database_that_is_away_gets_everything_when_it_is_back(job: Job, tmp_path: Path) -> None:
    tracker = Recorder(broken=2)
    writer, said = pen(tracker, tmp_path)
    writer.started(job)
    for epoch in range(3):
        writer.epoch(job, epoch, {})
    assert writer.end_search("FINISHED") == 0
    assert [call[0] for call in tracker.calls] == ["start", "epoch", "epoch", "epoch", "end search"]
    away, back = (line for line in said if "trying for" not in line)
    assert away.startswith("MLflow is away (database is locked); nothing waits for it but")
    assert back.startswith("MLflow is back after")


def test_a_database_that_stays_away_stops_nothing(job: Job, tmp_path: Path) -> None:
    writer, said = pen(Recorder(broken=math.inf), tmp_path)
    writer.started(job)
    for epoch in range(5):
        writer.epoch(job, epoch, {})
    writer.ended(job, result("t000-s0"))
    assert writer.end_search("FINISHED", patience=0.2) == 8
    assert "8 writes wait; trying for up to 0 s" in said[-1]


def test_epochs_that_did_not_fit_the_queue_come_from_the_disk(
    job: Job, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("faar_ray.tune.show.mlflow_watcher.MOST_WAITING", 0)
    tracker = Recorder()
    writer, _ = pen(tracker, tmp_path)
    with_epochs(tmp_path, "t000-s0", 4)
    writer.started(job)
    for epoch in range(3):
        writer.epoch(job, epoch, {})
    writer.ended(job, result("t000-s0"))
    writer.end_search("FINISHED")
    assert [call[2] for call in tracker.calls if call[0] == "epoch"] == [0, 1, 2]  # a fourth was not judged


def test_what_mlflow_refuses_is_told_once_and_blocks_nothing(job: Job, tmp_path: Path) -> None:
    tracker = Recorder(broken=3, fault=MlflowException("no such run", error_code=RESOURCE_DOES_NOT_EXIST))
    writer, said = pen(tracker, tmp_path)
    writer.started(job)
    for epoch in range(2):
        writer.epoch(job, epoch, {})
    assert writer.end_search("FINISHED") == 0
    assert said == ["MLflow refuses a write (no such run); the others go on"]


def test_what_a_driver_before_left_open_short_or_unwritten_is_completed_and_told(job: Job, tmp_path: Path) -> None:
    tracker = Recorder()
    tracker.known = {
        "t000-s0": child("whole", "FINISHED"),
        "t001-s0": child("open", "RUNNING"),
        "t002-s0": child("short", "FINISHED", epochs=2),
    }
    writer, said = pen(tracker, tmp_path)
    names = ("t000-s0", "t001-s0", "t002-s0", "t003-s0")
    for name in names:
        with_epochs(tmp_path, name, 3)
    writer.reconcile([(Job(name, "trial", job.config, {}, 0), result(name)) for name in names])
    writer.end_search("FINISHED")
    expected = []
    for name, run in (("t001-s0", "open"), ("t002-s0", "short"), ("t003-s0", "run-t003-s0")):
        expected += [("start", name), ("epoch", run), ("epoch", run), ("epoch", run), ("end", run)]
    assert [call[:2] for call in tracker.calls] == [*expected, ("end search", "FINISHED")]
    assert said == ["MLflow lacked something of 3 ended trials (t001-s0, t002-s0, t003-s0); completed from the disk"]


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
    assert writer.end_search("FAILED") == 0
