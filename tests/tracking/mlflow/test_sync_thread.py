"""The thread that repeats `sync`: outages, rejections, notices, and the wait at the end."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Iterator

import pytest

from faar_ray.errors import ConfigError
from faar_ray.tracking.mlflow.sync_thread import Rejections, SyncThread, shutdown_timeout

Until = Callable[[Callable[[], object]], None]
REFUSED = OSError(111, "Connection refused")


class Store:
    """Holds numbers, unless it fails; `sync` writes those that it lacks, in order."""

    def __init__(self) -> None:
        self.wanted: list[int] = []
        self.written: list[int] = []
        self.error: Exception | None = None
        self.seconds = 0.0
        self.rejected: set[int] = set()

    def sync(self, rejections: Rejections) -> Iterator[None]:
        while number := next((n for n in list(self.wanted) if n not in self.written and n not in self.rejected), None):
            with rejections:
                self._write(number)
            yield

    def pending(self) -> int:
        return len(self.wanted) - len(self.written) - len(self.rejected)

    def _write(self, number: int) -> None:
        time.sleep(self.seconds)
        if self.error is not None:
            raise self.error
        if number < 0:
            self.rejected.add(number)
            raise ValueError("no such thing")
        self.written.append(number)


def thread_of(store: Store, notices: list[str]) -> SyncThread:
    return SyncThread(store.sync, store.pending, notices.append, pauses=(0.01, 0.02))


def want(thread: SyncThread, store: Store, *numbers: int) -> None:
    for number in numbers:
        store.wanted.append(number)
        thread.changed()


def beginnings(notices: list[str]) -> list[str]:
    return [line.split(" (")[0].split(" after")[0] for line in notices]


def test_after_an_outage_everything_is_written_in_order_with_two_notices(notices: list[str], until: Until) -> None:
    store = Store()
    thread = thread_of(store, notices)
    store.error = REFUSED
    want(thread, store, 1, 2, 3, 4, 5)
    until(lambda: thread.unavailable)
    assert (thread.unavailable, store.pending(), store.written) == ("Connection refused", 5, [])
    store.error = None
    assert thread.close(20) == 0
    assert store.written == [1, 2, 3, 4, 5]
    assert beginnings(notices) == ["MLflow is unavailable", "MLflow is available again"]


def test_two_outages_have_a_notice_each(notices: list[str], until: Until) -> None:
    store = Store()
    thread = thread_of(store, notices)
    for number in (1, 2):
        store.error = REFUSED
        want(thread, store, number)
        until(lambda: thread.unavailable)
        store.error = None
        until(lambda: not thread.unavailable)
    assert thread.close(20) == 0
    assert beginnings(notices) == 2 * ["MLflow is unavailable", "MLflow is available again"]


def test_a_flush_ends_at_once_while_mlflow_is_unavailable(notices: list[str], until: Until) -> None:
    store = Store()
    thread = thread_of(store, notices)
    store.error = REFUSED
    want(thread, store, 1)
    assert not thread.flush()
    store.error = None
    until(lambda: not store.pending())
    assert thread.flush()
    assert thread.close(1) == 0


def test_closing_waits_no_longer_than_its_timeout_and_reports_what_is_missing(notices: list[str], until: Until) -> None:
    store = Store()
    thread = thread_of(store, notices)
    store.error = REFUSED
    want(thread, store, 1, 2, 3)
    start = time.monotonic()
    assert thread.close(0.3) == 3
    assert time.monotonic() - start >= 0.25
    assert any("3 updates wait; trying for up to" in line for line in notices)
    until(lambda: not thread._thread.is_alive())
    store.error = None
    time.sleep(0.1)
    assert store.written == []


def test_closing_tries_again_before_a_long_pause_is_over(notices: list[str], until: Until) -> None:
    store = Store()
    thread = SyncThread(store.sync, store.pending, notices.append, pauses=(600, 600))
    store.error = REFUSED
    want(thread, store, 1)
    until(lambda: thread.unavailable)
    store.error = None
    assert thread.close(20) == 0
    assert store.written == [1]


def test_many_updates_are_written_whatever_the_timeout(notices: list[str]) -> None:
    store = Store()
    thread, store.seconds = thread_of(store, notices), 0.05
    want(thread, store, *range(1, 13))
    assert thread.close(0.3) == 0
    assert store.written == list(range(1, 13))


def test_a_write_that_hangs_does_not_hold_the_end(notices: list[str]) -> None:
    release = threading.Event()

    def hang(_: Rejections) -> Iterator[None]:
        release.wait(20)
        yield

    thread = SyncThread(hang, lambda: 1, notices.append)
    thread.changed()
    assert thread.close(0.2) == 1
    release.set()


def test_a_rejection_is_reported_once_and_the_next_write_is_made(notices: list[str]) -> None:
    store = Store()
    thread = thread_of(store, notices)
    want(thread, store, -1, 1, -2, 2)
    assert thread.close(20) == 0
    assert (store.written, thread.rejections.rejected) == ([1, 2], 2)
    assert notices == ["MLflow rejects an update (no such thing); the others continue"]


def test_an_error_of_sync_itself_does_not_end_the_thread(notices: list[str], until: Until) -> None:
    store, broken = Store(), iter([True])

    def sync(rejections: Rejections) -> Iterator[None]:
        if next(broken, False):
            raise KeyError("a mistake")
        yield from store.sync(rejections)

    thread = SyncThread(sync, store.pending, notices.append, pauses=(0.01, 0.02))
    thread.changed()
    until(lambda: thread.rejections.rejected)
    want(thread, store, 1)
    assert thread.close(20) == 0
    assert store.written == [1]


def test_the_timeout_comes_from_the_environment(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("FAAR_RAY_MLFLOW_TIMEOUT_S", raising=False)
    assert shutdown_timeout() == 120
    monkeypatch.setenv("FAAR_RAY_MLFLOW_TIMEOUT_S", "2.5")
    assert shutdown_timeout() == 2.5
    for text in ("soon", "-1", "inf", "nan"):
        monkeypatch.setenv("FAAR_RAY_MLFLOW_TIMEOUT_S", text)
        with pytest.raises(ConfigError, match="FAAR_RAY_MLFLOW_TIMEOUT_S: must be a number of seconds"):
            shutdown_timeout()
