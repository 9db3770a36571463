"""A thread that keeps MLflow up to date with the run folder, however often MLflow is unavailable meanwhile.

The thread repeats one idempotent function, `sync`, whenever something changed. `sync` compares what MLflow should hold
with what was written and writes the difference, so an outage needs no queue: the next call finds what is missing.
"""

from __future__ import annotations

import os
import threading
import time
from collections.abc import Callable, Iterator
from types import TracebackType

from faar_ray.errors import ConfigError
from faar_ray.tracking.mlflow.store import is_unavailable, root_cause

SHUTDOWN_TIMEOUT_S, INTERRUPT_TIMEOUT_S = 120.0, 10.0
"""Seconds to wait for MLflow at the end of a search, and after Ctrl-C."""
TIMEOUT_VARIABLE = "FAAR_RAY_MLFLOW_TIMEOUT_S"
"""Environment variable that replaces SHUTDOWN_TIMEOUT_S."""
FIRST_PAUSE_S, LONGEST_PAUSE_S = 0.5, 15.0
"""Between two attempts while MLflow is unavailable."""
SILENT_WAIT_S = 2.0
"""Of waiting at the end before a notice."""
Notify = Callable[[str], None]


def shutdown_timeout() -> float:
    """Seconds to wait for MLflow at the end: of the environment, else SHUTDOWN_TIMEOUT_S.

    Raises:
        ConfigError: the variable is not a number of seconds.
    """
    text = os.environ.get(TIMEOUT_VARIABLE, str(SHUTDOWN_TIMEOUT_S))
    try:
        seconds = float(text)
    except ValueError:
        seconds = -1.0
    if not 0 <= seconds < float("inf"):
        raise ConfigError(f"{TIMEOUT_VARIABLE}: must be a number of seconds, 0 or more, got {text!r}")
    return seconds


class Rejections:
    """Context of one write: what MLflow rejects is counted, reported the first time and skipped.

    An error that means that MLflow is unavailable passes through, so that the write is repeated.
    """

    def __init__(self, notify: Notify) -> None:
        self.rejected = 0
        """Writes that were skipped."""
        self._notify = notify

    def __enter__(self) -> None:
        return None

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, _: TracebackType | None) -> bool:
        if not isinstance(error, Exception) or is_unavailable(error):
            return False
        self.rejected += 1
        if self.rejected == 1:
            self._notify(f"MLflow rejects an update ({root_cause(error)}); the others continue")
        return True


class SyncThread:
    """Calls `sync` after every change; nobody waits for it before the end.

    Args:
        sync: yields after every update that it wrote; raises while MLflow is unavailable; must bear being repeated.
        pending: number of updates that MLflow lacks.
        notify: called when MLflow becomes unavailable, when it is available again, and at the first rejected write.
        pauses: seconds before the second attempt, doubled until the other.
    """

    def __init__(
        self,
        sync: Callable[[Rejections], Iterator[None]],
        pending: Callable[[], int],
        notify: Notify,
        *,
        pauses: tuple[float, float] = (FIRST_PAUSE_S, LONGEST_PAUSE_S),
    ) -> None:
        self._sync, self._pending, self._notify = sync, pending, notify
        self._first_pause, self._longest_pause = pauses
        self.rejections = Rejections(notify)
        self._condition = threading.Condition()
        self._dirty = self._busy = self._discarded = False
        self._error: Exception | None = None
        self._unavailable_since = self._last_success = time.monotonic()
        self._thread = threading.Thread(target=self._work, name="MLflow", daemon=True)
        self._thread.start()

    @property
    def unavailable(self) -> str:
        """Why MLflow is unavailable; "" while it is available."""
        error = self._error
        return "" if error is None else root_cause(error)

    def changed(self) -> None:
        """Something is to be written; returns at once."""
        with self._condition:
            self._dirty = True
            self._condition.notify_all()

    def flush(self) -> bool:
        """Wait until everything is written, or MLflow is known to be unavailable; whether everything is written."""
        with self._condition:
            self._condition.wait_for(lambda: self._idle() or self._error is not None)
            return self._idle()

    def close(self, timeout: float) -> int:
        """Write the rest and stop; returns how many updates MLflow lacks.

        Args:
            timeout: seconds to wait with no write succeeding; while writes succeed there is no limit.
        """
        with self._condition:
            self._longest_pause = min(self._longest_pause, timeout / 10)
            self._condition.notify_all()

        start, notified = time.monotonic(), False
        while not self._wait_until_idle(min(0.5, timeout / 4)):
            waited = time.monotonic() - max(start, self._last_success)
            if waited >= timeout:
                break
            if waited >= min(SILENT_WAIT_S, timeout / 2) and not notified:
                notified = True
                self._notify(self._waiting_text(timeout))
        missing = self._pending()
        self.discard()
        return missing

    def discard(self) -> None:
        """Stop; what is not written stays unwritten."""
        with self._condition:
            self._discarded = True
            self._condition.notify_all()

    def _idle(self) -> bool:
        return self._discarded or not (self._dirty or self._busy)

    def _wait_until_idle(self, seconds: float) -> bool:
        with self._condition:
            return self._condition.wait_for(self._idle, seconds)

    def _waiting_text(self, timeout: float) -> str:
        state = f"unavailable ({self.unavailable})" if self.unavailable else "slow"
        return f"MLflow is {state}: {updates(self._pending())} wait; trying for up to {timeout:.0f} s (Ctrl-C gives up)"

    def _work(self) -> None:
        pause = self._first_pause
        while self._wait_for_change():
            try:
                with self.rejections:  # an error outside of any write must not end the thread
                    for _ in self._sync(self.rejections):
                        pause = self._first_pause
                        self._succeeded()
                        if self._discarded:
                            return
            except Exception as error:
                self._failed(error)
                self._sleep(pause)
                pause = min(2 * pause, self._longest_pause)
            else:
                self._finished()

    def _wait_for_change(self) -> bool:
        with self._condition:
            self._condition.wait_for(lambda: self._dirty or self._discarded)
            self._dirty, self._busy = False, True
            return not self._discarded

    def _sleep(self, seconds: float) -> None:
        """A pause; `close` shortens it."""
        start = time.monotonic()
        with self._condition:
            while not self._discarded and (rest := start + min(seconds, self._longest_pause) - time.monotonic()) > 0:
                self._condition.wait(rest)

    def _failed(self, error: Exception) -> None:
        if self._error is None and not self._discarded:
            self._unavailable_since = time.monotonic()
            self._notify(f"MLflow is unavailable ({root_cause(error)}); training continues, updates are repeated later")
        with self._condition:
            self._error, self._dirty = error, True
            self._condition.notify_all()

    def _succeeded(self) -> None:
        with self._condition:
            was_unavailable, self._error, self._last_success = self._error is not None, None, time.monotonic()
        if was_unavailable and not self._discarded:
            seconds = time.monotonic() - self._unavailable_since
            pending = self._pending()
            rest = f"; {updates(pending)} follow now" if pending else ""
            self._notify(f"MLflow is available again after {seconds:.0f} s{rest}")

    def _finished(self) -> None:
        self._succeeded()
        with self._condition:
            self._busy = False
            self._condition.notify_all()


def updates(number: int) -> str:
    """`1 update`, `2 updates`."""
    return f"{number} update{'s' * (number != 1)}"
