"""A trial's run in a real MLflow: complete whatever happened before, once, and closed last."""

from __future__ import annotations

import subprocess
import time
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager
from functools import partial
from pathlib import Path
from typing import Any

import pytest
from mlflow.entities import Metric

from faar_ray.config.trial import TrialConfig
from faar_ray.records import EpochRecord, RankRecord, SineRecord
from faar_ray.storage.run_location import TrialPaths
from faar_ray.tracking.files.epoch_file import write_epochs
from faar_ray.tracking.files.finish import finish_trial_files
from faar_ray.tracking.files.rank_trace import write_rank_trace
from faar_ray.tracking.files.sine_trace import write_sine_trace
from faar_ray.tracking.mlflow.sync_thread import Rejections, SyncThread
from faar_ray.tracking.mlflow.trial_run import Ending, TrialRun
from faar_ray.tracking.mlflow.writer import Tracker

Until = Callable[[Callable[[], object]], None]
CONFIG = TrialConfig.resolve({"seed": 3})
RANKS = [RankRecord(0, 0, 0, "qkv", "shared", 4, 4, "adapter", 1.0, 1.0, (1.0,) * 4, 0, 9)]
SINES = [
    SineRecord(e, 3, 1, "fc1", task, 9.0, 0.01, 0.05, 0.1, 0.45, 64, 40.0, 90.0, 0.2, None)
    for e in range(2)
    for task in ("depth", "edge")
]


@pytest.fixture
def run(tmp_path: Path) -> TrialRun:
    return TrialRun(TrialPaths(tmp_path / "run", "t000-s3"), CONFIG, {"seed": 3}, title="ranks")


def sync(run: TrialRun, tracker: Tracker) -> None:
    for _ in run.sync(tracker, Rejections(pytest.fail)):
        pass


def thread_of(run: TrialRun, tracker: Tracker, notices: list[str]) -> SyncThread:
    return SyncThread(partial(run.sync, tracker), run.pending, notices.append, pauses=(0.01, 0.02))


def add_epochs(run: TrialRun, thread: SyncThread, first: int, last: int) -> None:
    for epoch in range(first, last):
        run.add_epoch(epoch, {"delta_m": epoch / 2, "loss": 1.0})
        thread.changed()


def steps(run: TrialRun, tracker: Tracker) -> list[int]:
    return [point.step for point in tracker._client.get_metric_history(run.run_id, "delta_m")]


def artifacts(run: TrialRun, tracker: Tracker) -> set[str]:
    return {file.path for file in tracker._client.list_artifacts(run.run_id)}


def write_disk(trial: TrialPaths, epochs: int) -> None:
    trial.folder.mkdir(parents=True, exist_ok=True)
    write_epochs(trial.epochs, [EpochRecord(e, {"delta_m": e / 2}) for e in range(epochs)])


@pytest.mark.usefixtures("short_lock_wait")
def test_a_locked_database_delays_nobody_and_gets_every_epoch_once(
    tmp_path: Path, local_tracker: Tracker, run: TrialRun, notices: list[str], until: Until,
    locked: Callable[[Path], AbstractContextManager[Callable[[], None]]],
) -> None:  # fmt: skip
    thread = thread_of(run, local_tracker, notices)
    add_epochs(run, thread, 0, 2)
    until(lambda: not run.pending())
    with locked(tmp_path / "db" / "mlflow.db") as release:
        add_epochs(run, thread, 2, 6)
        run.ending = Ending("COMPLETE", 6, {})
        thread.changed()
        until(lambda: thread.unavailable)
        assert (thread.unavailable, run.pending()) == ("database is locked", 5)
        release()
    assert thread.close(30) == 0
    assert steps(run, local_tracker) == list(range(6))
    assert local_tracker._client.get_run(run.run_id).info.status == "FINISHED"
    beginnings = [line.split(" (")[0].split(" after")[0] for line in notices]
    assert beginnings == ["MLflow is unavailable", "MLflow is available again"]


@pytest.mark.parametrize("back", ["the same", "a copy"])
def test_a_database_that_is_moved_is_not_replaced_by_an_empty_one(
    tmp_path: Path, local_tracker: Tracker, run: TrialRun, notices: list[str], until: Until, back: str
) -> None:
    run.open(local_tracker)
    thread = thread_of(run, local_tracker, notices)
    (tmp_path / "db").rename(tmp_path / "elsewhere")
    add_epochs(run, thread, 0, 3)
    until(lambda: thread.unavailable)
    assert "No such file" in thread.unavailable
    time.sleep(0.1)
    assert not (tmp_path / "db").exists()
    if back == "the same":
        (tmp_path / "elsewhere").rename(tmp_path / "db")
    else:
        subprocess.run(["cp", "-r", tmp_path / "elsewhere", tmp_path / "db"], check=True)
    assert thread.close(30) == 0
    assert steps(run, local_tracker) == [0, 1, 2]


def lossy(monkeypatch: pytest.MonkeyPatch, tracker: Tracker, name: str, answers: Iterator[bool]) -> None:
    """A call of the client is made, but its answer is lost where `answers` has False."""
    plain = getattr(tracker._client, name)

    def call(*args: Any, **kwargs: Any) -> Any:
        answer = plain(*args, **kwargs)
        if not next(answers, True):
            raise ConnectionResetError(104, "Connection reset by peer")
        return answer

    monkeypatch.setattr(tracker._client, name, call)


def test_a_batch_whose_answer_was_lost_is_not_written_twice(
    local_tracker: Tracker, run: TrialRun, notices: list[str], until: Until, monkeypatch: pytest.MonkeyPatch
) -> None:
    run.open(local_tracker)
    thread = thread_of(run, local_tracker, notices)
    lossy(monkeypatch, local_tracker, "log_batch", iter([True, False, True]))
    for epoch in range(4):
        add_epochs(run, thread, epoch, epoch + 1)
        until(lambda: not run.pending())
    assert thread.close(20) == 0
    assert steps(run, local_tracker) == [0, 1, 2, 3]


@pytest.mark.parametrize("call", ["create_run", "log_batch", "log_text"])
def test_a_start_that_failed_half_way_finds_the_run_that_it_created(
    tmp_path: Path,
    local_tracker: Tracker,
    run: TrialRun,
    notices: list[str],
    monkeypatch: pytest.MonkeyPatch,
    call: str,
) -> None:
    lossy(monkeypatch, local_tracker, call, iter([False, False]))
    thread = thread_of(run, local_tracker, notices)
    thread.changed()
    assert thread.close(20) == 0
    assert [child.run_id for child in local_tracker.children().values()] == [run.run_id]
    assert len(list(local_tracker._children())) == 1
    assert local_tracker._client.get_run(run.run_id).data.params == {"seed": "3"}
    assert artifacts(run, local_tracker) == {"config.yaml"}


def test_epochs_that_waited_are_one_batch(
    local_tracker: Tracker, run: TrialRun, monkeypatch: pytest.MonkeyPatch
) -> None:
    run.open(local_tracker)
    batches, plain = list[int](), local_tracker._client.log_batch

    def log_batch(run_id: str, metrics: list[Metric]) -> None:
        batches.append(len(metrics))
        plain(run_id, metrics=metrics)

    monkeypatch.setattr(local_tracker._client, "log_batch", log_batch)
    for epoch in range(30):
        run.add_epoch(epoch, {f"m{i}": 1.0 for i in range(40)})
    sync(run, local_tracker)
    assert batches == [1000, 200]


def test_epochs_come_from_memory_and_from_the_disk_and_those_not_judged_are_left_out(
    local_tracker: Tracker, run: TrialRun
) -> None:
    write_disk(run.trial, 4)
    run.add_epoch(0, {"delta_m": 0.0})
    run.ending = Ending("PRUNED", 3, {"delta_m": 1.0}, "asha")
    assert run.pending() == 3
    sync(run, local_tracker)
    assert steps(run, local_tracker) == [0, 1, 2]
    data = local_tracker._client.get_run(run.run_id).data
    assert (data.tags["faar_ray.state"], data.tags["faar_ray.epochs"]) == ("PRUNED", "3")
    assert data.tags["faar_ray.reason"] == "asha"


def test_a_trial_without_files_shows_its_last_epoch(local_tracker: Tracker, run: TrialRun) -> None:
    run.ending = Ending("COMPLETE", 5, {"delta_m": 1.0, "test/delta_m": 2.0})
    sync(run, local_tracker)
    assert steps(run, local_tracker) == [4]
    assert local_tracker._client.get_run(run.run_id).data.metrics == {"delta_m": 1.0, "test/delta_m": 2.0}
    assert run.is_whole()


@pytest.mark.parametrize("records", [[], SINES])
def test_a_closed_run_has_the_files_of_its_trial_and_can_be_synced_again(
    local_tracker: Tracker, run: TrialRun, records: list[SineRecord], tmp_path: Path
) -> None:
    write_disk(run.trial, 1)
    write_rank_trace(run.trial.trace, "t", RANKS)
    write_sine_trace(run.trial.sines, "t", records)
    run.trial.adapter.write_bytes(b"x")
    finish_trial_files(run.trial, run.title)
    run.ending = Ending("COMPLETE", 1, {"delta_m": 0.0})
    sync(run, local_tracker)
    again = TrialRun(run.trial, CONFIG, {"seed": 3}, run_id=run.run_id, ending=run.ending)
    for same in (run, again):
        sync(same, local_tracker)

    sines = {"sinewich_trace.parquet", "sinewich_trace.png"} if records else set()
    expected = {"config.yaml", "rank_trace.parquet", "rank_trace.png", "adapter.safetensors"} | sines
    assert artifacts(run, local_tracker) == expected
    assert local_tracker._client.get_run(run.run_id).info.status == "FINISHED"
    assert local_tracker.children()["t000-s3"].artifacts == expected - {"config.yaml"}
    logged = Path(local_tracker._client.download_artifacts(run.run_id, "rank_trace.parquet", str(tmp_path)))
    assert logged.read_bytes() == run.trial.trace.read_bytes()
    assert run.is_whole()


def test_a_picture_that_is_drawn_after_the_end_is_added(local_tracker: Tracker, run: TrialRun) -> None:
    write_disk(run.trial, 1)
    write_rank_trace(run.trial.trace, "t", RANKS)
    run.ending = Ending("PRUNED", 1, {})
    sync(run, local_tracker)
    assert (run.is_closed, run.is_whole()) == (True, False)

    finish_trial_files(run.trial, run.title)
    sync(run, local_tracker)
    assert run.is_whole()
    assert local_tracker.children()["t000-s3"].artifacts == {"rank_trace.parquet", "rank_trace.png"}
    assert local_tracker._client.get_run(run.run_id).info.status == "KILLED"


def noted(calls: list[str], name: str, function: Callable[..., Any]) -> Callable[..., Any]:
    def call(*args: Any, **kwargs: Any) -> Any:
        calls.append(name)
        return function(*args, **kwargs)

    return call


def test_a_run_is_closed_only_after_everything_else(
    local_tracker: Tracker, run: TrialRun, monkeypatch: pytest.MonkeyPatch
) -> None:
    write_disk(run.trial, 2)
    run.trial.adapter.write_bytes(b"x")
    run.ending = Ending("COMPLETE", 2, {})
    calls: list[str] = []
    for name in ("create_run", "log_batch", "log_artifact", "set_terminated"):
        monkeypatch.setattr(local_tracker._client, name, noted(calls, name, getattr(local_tracker._client, name)))
    sync(run, local_tracker)
    assert (calls[0], calls[-1], calls.count("set_terminated")) == ("create_run", "set_terminated", 1)
    assert calls.index("log_artifact") < calls.index("set_terminated")


def test_a_run_that_somebody_deleted_is_reported_once_and_given_up(local_tracker: Tracker, run: TrialRun) -> None:
    run.open(local_tracker)
    local_tracker._client.delete_run(run.run_id)
    notices: list[str] = []
    run.add_epoch(0, {"delta_m": 1.0})
    run.ending = Ending("COMPLETE", 1, {})
    for _ in run.sync(local_tracker, Rejections(notices.append)):
        pass
    assert (len(notices), run.pending()) == (1, 0)
    assert notices[0].startswith("MLflow rejects an update (")


def test_a_start_whose_artifacts_are_refused_is_tried_again_with_the_same_run(
    local_tracker: Tracker, run: TrialRun, notices: list[str], until: Until, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder = Path(local_tracker._client.get_experiment(local_tracker.experiment_id).artifact_location[len("file://") :])
    folder.rename(folder.with_name("away"))
    folder.write_text("no folder can be made here")
    attempts: list[str] = []
    monkeypatch.setattr(local_tracker._client, "log_text", noted(attempts, "text", local_tracker._client.log_text))
    thread = thread_of(run, local_tracker, notices)
    thread.changed()
    until(lambda: len(attempts) >= 5)
    assert len(list(local_tracker._children())) == 1

    folder.unlink()
    folder.with_name("away").rename(folder)
    assert thread.close(20) == 0
    (child,) = local_tracker._children()
    assert (child.info.run_id, artifacts(run, local_tracker)) == (run.run_id, {"config.yaml"})
