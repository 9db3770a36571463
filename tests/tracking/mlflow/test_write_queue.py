"""Writes to a place that comes and goes: order, repetition, what is told; a real database locked or moved."""

from __future__ import annotations

import sqlite3
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import partial
from pathlib import Path
from typing import Any

import pytest
from faar_ray.tracking.mlflow.mlflow_faults import is_away, reason_of
from faar_ray.tracking.mlflow.write_queue import Outbox
from mlflow.exceptions import MlflowException
from mlflow.protos.databricks_pb2 import INTERNAL_ERROR, INVALID_PARAMETER_VALUE, TEMPORARILY_UNAVAILABLE
from sqlalchemy import event
from sqlalchemy.engine import Engine

from faar_ray.config.trial import TrialConfig
from faar_ray.tracking.mlflow.writer import Tracker

CONFIG = TrialConfig.resolve({"seed": 3})


class Place:
    """Takes writes, unless it is away."""

    def __init__(self) -> None:
        self.fault: Exception | None = None
        self.got: list[int] = []

    def write(self, number: int) -> Callable[[], None]:
        def now() -> None:
            if self.fault is not None:
                raise self.fault
            self.got.append(number)

        return now


@pytest.fixture
def said() -> list[str]:
    return []


def outbox(said: list[str]) -> Outbox:
    return Outbox("the place", is_away, reason_of, said.append, pause=0.01, longest=0.02)


def until(true: Callable[[], Any], seconds: float = 20) -> None:
    deadline = time.monotonic() + seconds
    while not true():
        assert time.monotonic() < deadline
        time.sleep(0.01)


def test_what_failed_stays_at_the_head_and_order_is_kept(said: list[str]) -> None:
    place, box = Place(), outbox(said)
    place.fault = OSError(111, "Connection refused")
    for number in range(5):
        box.put(place.write(number))
    until(lambda: box.away)
    assert (box.away, box.waiting, place.got) == ("Connection refused", 5, [])
    place.fault = None
    assert box.close(20) == 0
    assert place.got == [0, 1, 2, 3, 4]
    assert [line.split(" (")[0].split(" after")[0] for line in said] == ["the place is away", "the place is back"]


def test_settle_ends_at_once_when_the_place_is_away(said: list[str]) -> None:
    place, box = Place(), outbox(said)
    place.fault = OSError("away")
    box.put(place.write(0))
    assert not box.settle()
    place.fault = None
    until(lambda: not box.waiting)
    assert box.settle()


def test_closing_waits_no_longer_than_its_patience_and_tells_what_waits(said: list[str]) -> None:
    place, box = Place(), outbox(said)
    place.fault = OSError("away")
    for number in range(3):
        box.put(place.write(number))
    began = time.monotonic()
    assert box.close(0.3) == 3
    assert 0.25 < time.monotonic() - began < 5
    assert any("3 writes wait; trying for up to" in line for line in said)
    place.fault = None
    time.sleep(0.1)
    assert place.got == []


def test_a_long_backlog_is_written_whatever_the_patience(said: list[str]) -> None:
    box, done = outbox(said), list[int]()

    def slow() -> None:
        time.sleep(0.05)
        done.append(1)

    for _ in range(12):
        box.put(slow)
    assert box.close(0.3) == 0
    assert len(done) == 12


def test_a_write_that_hangs_does_not_hold_the_end(said: list[str]) -> None:
    box, release = outbox(said), threading.Event()

    def hang() -> None:
        release.wait(20)

    box.put(hang)
    assert box.close(0.2) == 1
    release.set()


def test_a_refusal_is_told_once_and_the_next_write_is_made(said: list[str]) -> None:
    place, box = Place(), outbox(said)

    def refused() -> None:
        raise ValueError("no such thing")

    for write in (refused, place.write(1), refused, place.write(2)):
        box.put(write)
    assert box.close(20) == 0
    assert (place.got, box.refused) == ([1, 2], 2)
    assert said == ["the place refuses a write (no such thing); the others go on"]


@pytest.mark.parametrize(
    ("fault", "away"),
    [
        (MlflowException("locked", error_code=TEMPORARILY_UNAVAILABLE), True),
        (MlflowException("no connection", error_code=INTERNAL_ERROR), True),
        (MlflowException("bad name", error_code=INVALID_PARAMETER_VALUE), False),
        (ConnectionResetError(), True),
        (KeyError("run"), False),
    ],
)
def test_away_and_refused_are_told_apart(fault: Exception, away: bool) -> None:
    assert is_away(fault) is away


@contextmanager
def locked(database: Path) -> Iterator[Callable[[], None]]:
    """Another process holds the whole database; gives what ends it."""
    code = (
        "import sqlite3, sys; c = sqlite3.connect(sys.argv[1], isolation_level=None); c.execute('BEGIN EXCLUSIVE'); "
        "print('locked', flush=True); sys.stdin.read()"
    )
    command = [sys.executable, "-c", code, str(database)]
    holder = subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)
    assert holder.stdin and holder.stdout and holder.stdout.readline() == "locked\n"

    def release() -> None:
        holder.stdin.close()
        holder.wait(20)

    try:
        yield release
    finally:
        if holder.poll() is None:
            release()


@pytest.fixture
def impatient() -> Iterator[None]:
    """sqlite gives up on a lock after 0.2 s, where MLflow says 20 s."""

    def shorter(conn: Any, cursor: Any, statement: str, parameters: Any, *_: Any) -> tuple[str, Any]:
        return statement.replace("busy_timeout = 20000", "busy_timeout = 200"), parameters

    event.listen(Engine, "before_cursor_execute", shorter, retval=True)
    yield
    event.remove(Engine, "before_cursor_execute", shorter)


def tracked(folder: Path) -> tuple[Tracker, str]:
    (folder / "db").mkdir()
    tracker = Tracker(f"sqlite:///{folder}/db/mlflow.db", "rho")
    tracker.start_search("rho", "name: rho\n", {})
    return tracker, tracker.start_trial("t000-s3", CONFIG, {}, "trial")


def log_all(box: Outbox, tracker: Tracker, run: str, first: int, last: int) -> None:
    for epoch in range(first, last):
        box.put(partial(tracker.log_epoch, run, epoch, {"delta_m": epoch / 2, "loss": 1.0}))


def steps(tracker: Tracker, run: str) -> list[int]:
    return [point.step for point in tracker._client.get_metric_history(run, "delta_m")]


@pytest.mark.usefixtures("impatient")
def test_a_locked_database_delays_nobody_and_gets_every_epoch_once(tmp_path: Path, said: list[str]) -> None:
    tracker, run = tracked(tmp_path)
    box = outbox(said)
    log_all(box, tracker, run, 0, 2)
    until(lambda: not box.waiting)
    with locked(tmp_path / "db" / "mlflow.db") as release:
        began = time.monotonic()
        log_all(box, tracker, run, 2, 6)
        box.put(lambda: tracker.end_trial(run, "COMPLETE", epochs=6))
        assert time.monotonic() - began < 0.1
        until(lambda: box.away)
        assert box.away == "database is locked"
        release()
    assert box.close(30) == 0
    assert steps(tracker, run) == list(range(6))
    assert tracker._client.get_run(run).info.status == "FINISHED"
    assert [line.split(" (")[0].split(" after")[0] for line in said] == ["the place is away", "the place is back"]


@pytest.mark.parametrize("back", ["the same", "a copy"])
def test_a_database_that_is_moved_away_is_not_replaced_by_an_empty_one(
    tmp_path: Path, said: list[str], back: str
) -> None:
    tracker, run = tracked(tmp_path)
    box = outbox(said)
    (tmp_path / "db").rename(tmp_path / "elsewhere")
    log_all(box, tracker, run, 0, 3)
    until(lambda: box.away)
    assert "No such file" in box.away
    time.sleep(0.1)
    assert not (tmp_path / "db").exists()
    if back == "the same":
        (tmp_path / "elsewhere").rename(tmp_path / "db")
    else:
        subprocess.run(["cp", "-r", tmp_path / "elsewhere", tmp_path / "db"], check=True)
    assert box.close(30) == 0
    assert steps(tracker, run) == [0, 1, 2]


def test_a_batch_whose_answer_was_lost_is_not_written_twice(
    tmp_path: Path, said: list[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    tracker, run = tracked(tmp_path)
    box, plain = outbox(said), tracker._client.log_batch
    answers = iter([True, False, True])

    def lossy(*args: Any, **kwargs: Any) -> None:
        plain(*args, **kwargs)
        if not next(answers, True):
            raise ConnectionResetError(104, "Connection reset by peer")

    monkeypatch.setattr(tracker._client, "log_batch", lossy)
    log_all(box, tracker, run, 0, 4)
    assert box.close(20) == 0
    assert steps(tracker, run) == [0, 1, 2, 3]


def test_a_run_whose_making_was_not_answered_is_found_again(
    tmp_path: Path, said: list[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    tracker, _ = tracked(tmp_path)
    box, plain, answers, found = outbox(said), tracker._client.create_run, iter([False]), list[str]()

    def lossy(*args: Any, **kwargs: Any) -> Any:
        run = plain(*args, **kwargs)
        if not next(answers, True):
            raise ConnectionResetError(104, "Connection reset by peer")
        return run

    monkeypatch.setattr(tracker._client, "create_run", lossy)
    box.put(lambda: found.append(tracker.start_trial("t001-s3", CONFIG, {"seed": 3}, "trial")))
    assert box.close(20) == 0
    with sqlite3.connect(tmp_path / "db" / "mlflow.db") as database:
        (runs,) = database.execute("select count(*) from runs where name = 't001-s3'").fetchone()
    assert runs == 1
    assert tracker._client.get_run(found[0]).data.params == {"seed": "3"}
