"""The watcher that keeps MLflow up to date: what a real MLflow holds after a search, and when it was unavailable."""

from __future__ import annotations

import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from mlflow.entities import Run
from mlflow.exceptions import MlflowException
from mlflow.protos.databricks_pb2 import RESOURCE_DOES_NOT_EXIST

from faar_ray.errors import ConfigError
from faar_ray.records import EpochRecord, RankRecord, TrialResult
from faar_ray.storage.run_location import TrialPaths
from faar_ray.tracking.files.epoch_file import write_epochs
from faar_ray.tracking.files.rank_trace import write_rank_trace
from faar_ray.tracking.mlflow.writer import Tracker
from faar_ray.tune.run.jobs import Job
from faar_ray.tune.show.mlflow_watcher import MLflowWatcher
from faar_ray.tune.space.space import SearchSpace

RANKS = [RankRecord(0, 0, 0, "qkv", "shared", 4, 4, "adapter", 1.0, 1.0, (1.0,) * 4, 0, 9)]
LOCKED = OSError("database is locked")


class Harness:
    """A real tracker whose calls are noted; the first `failures` of them fail."""

    def __init__(self, folder: Path, database: Path) -> None:
        self.folder, self.failures, self.error = folder, 0.0, Exception()
        self.calls: list[str] = []
        self.notices: list[str] = []
        shutil.copyfile(database, folder / "mlflow.db")
        self.tracker = self.open()
        self.tracker.start_search("rho", "name: rho\n", {})

    def open(self) -> Tracker:
        tracker = Tracker(f"sqlite:///{self.folder}/mlflow.db", "rho")
        for name in ("start_trial", "log_epochs", "log_final", "end_trial", "end_search", "close_running"):
            setattr(tracker, name, self._guarded(name, getattr(tracker, name)))
        return tracker

    def watcher(self, failures: float = 0, error: Exception = LOCKED, timeout: float = 20) -> MLflowWatcher:
        """Of the search, by a new tracker, as a driver that resumes has it."""
        self.failures, self.error, self.calls = failures, error, []

        def opened() -> Tracker:
            tracker = self.open()
            tracker.parent = self.tracker.parent
            return tracker

        return MLflowWatcher(opened, self.folder, self.notices.append, timeout)

    def _guarded(self, name: str, function: Callable[..., Any]) -> Callable[..., Any]:
        def call(*args: Any, **kwargs: Any) -> Any:
            if self.failures > 0:
                self.failures -= 1
                raise self.error
            self.calls.append(name)
            return function(*args, **kwargs)

        return call

    def runs(self) -> dict[str, Run]:
        """By trial id, one each."""
        runs = list(self.tracker._children())
        by_id = {run.data.tags["faar_ray.trial_id"]: run for run in runs}
        assert len(by_id) == len(runs)
        return by_id

    def steps(self, name: str) -> list[int]:
        return [m.step for m in self.tracker._client.get_metric_history(self.runs()[name].info.run_id, "delta_m")]

    def artifacts(self, name: str) -> set[str]:
        return {file.path for file in self.tracker._client.list_artifacts(self.runs()[name].info.run_id)}

    def parent_status(self) -> str:
        return str(self.tracker._client.get_run(self.tracker.parent).info.status)


@pytest.fixture
def harness(tmp_path: Path, empty_mlflow: Path) -> Harness:
    return Harness(tmp_path, empty_mlflow)


@pytest.fixture
def job(space: Callable[..., SearchSpace]) -> Job:
    return named("t000-s0", space)


def named(name: str, space: Callable[..., SearchSpace]) -> Job:
    return Job(name, "trial", space().trial_config({}), {"pdrs.rho_shared": 0.95}, 0)


def result(name: str, epochs: int = 3) -> TrialResult:
    return TrialResult(name, "abc", 0, "trial", "COMPLETE", {}, {"delta_m": 1.0}, 1.0, epochs)


def write_disk(folder: Path, name: str, epochs: int) -> None:
    write_epochs(folder / "trials" / name / "epochs.parquet", [EpochRecord(e, {"delta_m": 1.0}) for e in range(epochs)])


def test_a_search_is_written_in_order(harness: Harness, job: Job) -> None:
    watcher = harness.watcher()
    write_disk(harness.folder, "t000-s0", 1)
    watcher.started(job)
    watcher.epoch(job, 0, {"delta_m": 1.0})
    watcher.ended(job, result("t000-s0", 1))
    watcher.flush({"t000-s0": {"test/delta_m": 2.0}})
    assert watcher.end_search("FINISHED") == 0
    order = [name for name, next_one in zip(harness.calls, [*harness.calls[1:], ""], strict=True) if name != next_one]
    assert order == ["start_trial", "log_epochs", "end_trial", "log_final", "log_epochs", "close_running", "end_search"]
    (run,) = harness.runs().values()
    assert watcher.run_id("t000-s0") == run.info.run_id
    assert (run.info.status, run.data.metrics) == ("FINISHED", {"delta_m": 1.0, "test/delta_m": 2.0})
    assert (harness.parent_status(), harness.notices) == ("FINISHED", [])


def test_a_database_that_was_unavailable_gets_everything(harness: Harness, job: Job) -> None:
    watcher = harness.watcher(failures=2)
    watcher.started(job)
    for epoch in range(3):
        watcher.epoch(job, epoch, {"delta_m": float(epoch)})
    assert watcher.end_search("FINISHED") == 0
    assert (harness.steps("t000-s0"), harness.parent_status()) == ([0, 1, 2], "FINISHED")
    unavailable, available = (line for line in harness.notices if "trying for" not in line)
    assert unavailable == "MLflow is unavailable (database is locked); training continues, updates are repeated later"
    assert available.startswith("MLflow is available again after")


def test_a_database_that_stays_unavailable_stops_nothing(harness: Harness, job: Job) -> None:
    watcher = harness.watcher(failures=float("inf"), timeout=0.2)
    watcher.started(job)
    for epoch in range(5):
        watcher.epoch(job, epoch, {})
    watcher.ended(job, result("t000-s0"))
    watcher.flush({})
    assert watcher.backlog() == watcher.waiting() == 7
    assert watcher.end_search("FINISHED") == 8
    assert "8 updates wait; trying for up to 0 s" in harness.notices[-1]


def test_epochs_beyond_the_limit_come_from_the_disk(
    harness: Harness, job: Job, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("faar_ray.tune.show.mlflow_watcher.MAX_WAITING", 0)
    watcher = harness.watcher()
    write_disk(harness.folder, "t000-s0", 4)
    watcher.started(job)
    for epoch in range(3):
        watcher.epoch(job, epoch, {})
    watcher.ended(job, result("t000-s0"))
    watcher.end_search("FINISHED")
    assert harness.steps("t000-s0") == [0, 1, 2]  # a fourth was not judged


def test_what_mlflow_rejects_is_reported_once_and_blocks_nothing(
    harness: Harness, job: Job, space: Callable[..., SearchSpace]
) -> None:
    other = named("t001-s0", space)
    rejected = MlflowException("no such run", error_code=RESOURCE_DOES_NOT_EXIST)
    watcher = harness.watcher(failures=1, error=rejected)
    for one in (job, other):
        watcher.started(one)
        for epoch in range(2):
            watcher.epoch(one, epoch, {"delta_m": 1.0})
        watcher.ended(one, result(one.trial_id, 2))
    assert watcher.end_search("FINISHED") == 0
    assert harness.notices == ["MLflow rejects an update (no such run); the others continue"]
    assert (list(harness.runs()), harness.steps("t001-s0")) == (["t001-s0"], [0, 1])


def test_what_an_earlier_driver_left_open_short_or_unwritten_is_completed_with_a_notice(
    harness: Harness, space: Callable[..., SearchSpace]
) -> None:
    names = ["t000-s0", "t001-s0", "t002-s0", "t003-s0"]
    jobs = {name: named(name, space) for name in names}
    earlier = harness.watcher()
    for name in names[:3]:
        earlier.started(jobs[name])
        earlier.epoch(jobs[name], 0, {"delta_m": 1.0})
    write_disk(harness.folder, "t000-s0", 3)
    earlier.ended(jobs["t000-s0"], result("t000-s0"))
    earlier.ended(jobs["t002-s0"], result("t002-s0", 2))  # a third epoch was judged after that
    earlier.flush({})
    before = {name: run.info.run_id for name, run in harness.runs().items()}
    for name in names:
        write_disk(harness.folder, name, 3)

    watcher = harness.watcher()
    watcher.reconcile([(jobs[name], result(name)) for name in names])
    assert watcher.end_search("FINISHED") == 0
    assert harness.notices == [
        "MLflow lacked something of 3 ended trials (t001-s0, t002-s0, t003-s0); completed from the disk"
    ]
    assert harness.calls.count("start_trial") == 3  # the first was not touched
    runs = harness.runs()
    assert {name: runs[name].info.run_id for name in before} == before
    for name in names:
        assert (runs[name].info.status, harness.steps(name)) == ("FINISHED", [0, 1, 2])

    again = harness.watcher()
    again.reconcile([(jobs[name], result(name)) for name in names])
    assert again.end_search("FINISHED") == 0
    assert (harness.calls, len(harness.notices)) == (["close_running", "end_search"], 1)


def test_a_resumed_trial_continues_its_run(harness: Harness, job: Job) -> None:
    earlier = harness.watcher()
    earlier.started(job)
    earlier.epoch(job, 0, {"delta_m": 1.0})
    assert earlier.end_search("KILLED", open_trials=("PRUNED", "interrupted; --resume goes on")) == 0
    assert (harness.runs()["t000-s0"].info.status, harness.parent_status()) == ("KILLED", "KILLED")
    assert harness.runs()["t000-s0"].data.tags["faar_ray.reason"] == "interrupted; --resume goes on"

    watcher = harness.watcher()
    watcher.started(job)
    for epoch in range(3):
        watcher.epoch(job, epoch, {"delta_m": 1.0})
    watcher.ended(job, result("t000-s0"))
    assert watcher.end_search("FINISHED") == 0
    run = harness.runs()["t000-s0"]
    assert (harness.steps("t000-s0"), run.info.status) == ([0, 1, 2], "FINISHED")
    assert "faar_ray.reason" not in run.data.tags


def test_a_cached_reference_is_tagged(harness: Harness, job: Job) -> None:
    watcher = harness.watcher()
    watcher.started(Job("ref-semseg", "reference", job.config, {}, cached=True))
    watcher.end_search("FINISHED")
    tags = harness.runs()["ref-semseg"].data.tags
    assert (tags["faar_ray.cached"], tags["faar_ray.role"]) == ("true", "reference")


def test_the_pictures_of_a_killed_trial_are_drawn_at_the_end(harness: Harness, job: Job) -> None:
    watcher = harness.watcher()
    watcher.started(job)
    write_disk(harness.folder, "t000-s0", 3)
    write_rank_trace(TrialPaths(harness.folder, "t000-s0").trace, "t000-s0", RANKS)
    watcher.ended(job, result("t000-s0"))
    watcher.flush({})
    assert {"rank_trace.parquet", "rank_trace.png"} < harness.artifacts("t000-s0")
    assert watcher.end_search("FINISHED") == 0


def test_an_interrupted_search_leaves_the_pictures_to_the_next_driver(harness: Harness, job: Job) -> None:
    earlier = harness.watcher()
    earlier.started(job)
    write_disk(harness.folder, "t000-s0", 3)
    write_rank_trace(TrialPaths(harness.folder, "t000-s0").trace, "t000-s0", RANKS)
    earlier.ended(job, result("t000-s0"))
    assert earlier.end_search("KILLED", open_trials=("PRUNED", "interrupted")) == 0
    assert "rank_trace.png" not in harness.artifacts("t000-s0")

    watcher = harness.watcher()
    watcher.reconcile([(job, result("t000-s0"))])
    watcher.flush({})
    assert "rank_trace.png" in harness.artifacts("t000-s0")
    assert (harness.runs()["t000-s0"].info.status, harness.notices) == ("FINISHED", [])
    assert watcher.end_search("FINISHED") == 0


def test_a_tracker_that_cannot_be_opened_is_an_error_where_it_is_needed(tmp_path: Path) -> None:
    def refuse() -> Tracker:
        raise ConfigError("tracking.uri: no such server")

    watcher = MLflowWatcher(refuse, tmp_path, print)
    with pytest.raises(ConfigError, match="no such server"):
        assert watcher.tracker
    assert watcher.end_search("FAILED") == 0
