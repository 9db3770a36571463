"""Writes to a place that may be away: in order, in a thread, each tried until it is made; nobody waits for them.

A write that fails because the place is away stays at the head of the queue and is tried again, with growing pauses. One
that the place refuses (it would be refused again) is told and given up, so that it does not block the others. A write
may have happened although its answer was lost: writes must bear being repeated.
"""

from __future__ import annotations

import threading
import time
from collections import deque
from collections.abc import Callable

Write = Callable[[], None]
FIRST_PAUSE, LONGEST_PAUSE = 0.5, 15.0  # seconds between two attempts
SILENCE = 2.0  # seconds of waiting at the end before it is told


class Outbox:
    """The queue and its thread.

    Args:
        name: of the place, for people.
        away: whether a fault says that the place is away (else it refuses).
        reason: a fault in a few words.
        tell: is told when the place goes away, when it is back, and the first time that it refuses.
        pause: seconds before the second attempt; doubled until `longest`.
        longest: the longest pause, in seconds.
    """

    def __init__(
        self,
        name: str,
        away: Callable[[Exception], bool],
        reason: Callable[[BaseException], str],
        tell: Callable[[str], None],
        *,
        pause: float = FIRST_PAUSE,
        longest: float = LONGEST_PAUSE,
    ) -> None:
        self.name, self.tell = name, tell
        self.refused = 0
        """Writes that were given up."""
        self._is_away, self._reason, self._pauses = away, reason, (pause, longest)
        self._queue: deque[Write] = deque()
        self._changed = threading.Condition()
        self._closed = self._abandoned = False
        self._fault: Exception | None = None
        self._away_since = self._moved = time.monotonic()
        self._thread = threading.Thread(target=self._work, name=name, daemon=True)
        self._thread.start()

    @property
    def waiting(self) -> int:
        """Writes not made yet."""
        return len(self._queue)

    @property
    def away(self) -> str:
        """Why the place is away; "" while it is not."""
        fault = self._fault
        return "" if fault is None else self._reason(fault)

    def put(self, write: Write) -> None:
        """Queue a write; returns at once. After `abandon` it is dropped."""
        with self._changed:
            if not self._abandoned:
                self._queue.append(write)
                self._changed.notify_all()

    def attempt(self, write: Write) -> None:
        """Make one part of a write, within a write: what is refused is told, and the parts after it are made.

        Raises:
            Exception: the place is away; the whole write is tried again.
        """
        try:
            write()
        except Exception as fault:
            if self._is_away(fault):
                raise
            self.refused += 1
            if self.refused == 1:
                self.tell(f"{self.name} refuses a write ({self._reason(fault)}); the others go on")

    def settle(self) -> bool:
        """Wait until all is written, or it is known that the place is away; whether all is written."""
        with self._changed:
            self._changed.wait_for(lambda: not self._queue or self._fault is not None)
            return not self._queue

    def close(self, patience: float) -> int:
        """Write the rest and stop; how many writes could not be made.

        Args:
            patience: seconds to wait with no write succeeding; while writes succeed there is no limit.
        """
        asked, told = time.monotonic(), False
        with self._changed:
            self._closed = True
            self._changed.notify_all()
            while self._queue and self._thread.is_alive():
                idle = time.monotonic() - max(asked, self._moved)
                if idle >= patience:
                    break
                if idle >= min(SILENCE, patience / 2) and not told:
                    told = True
                    self.tell(self._waiting_text(patience))
                self._changed.wait(min(0.5, patience / 4))
            left = len(self._queue)
        self.abandon()
        return left

    def abandon(self) -> None:
        """Drop what waits and take nothing more."""
        with self._changed:
            self._closed = self._abandoned = True
            self._queue.clear()
            self._changed.notify_all()

    def _waiting_text(self, patience: float) -> str:
        why = f"is away ({self.away})" if self.away else "is slow"
        return f"{self.name} {why}: {_writes(self.waiting)} wait; trying for up to {patience:.0f} s (Ctrl-C gives up)"

    def _work(self) -> None:
        pause = self._pauses[0]
        while (write := self._head()) is not None:
            try:
                self.attempt(write)
            except Exception as fault:
                self._went_away(fault)
                with self._changed:
                    self._changed.wait_for(lambda: self._abandoned, timeout=pause)
                pause = min(2 * pause, self._pauses[1])
                continue
            pause = self._pauses[0]
            self._made(write)

    def _head(self) -> Write | None:
        with self._changed:
            self._changed.wait_for(lambda: self._queue or self._closed)
            return self._queue[0] if self._queue else None

    def _went_away(self, fault: Exception) -> None:
        with self._changed:
            first, self._fault = self._fault is None, fault
            self._changed.notify_all()
        if first and not self._abandoned:
            self._away_since = time.monotonic()
            self.tell(f"{self.name} is away ({self._reason(fault)}); nothing waits for it but {_writes(self.waiting)}")

    def _made(self, write: Write) -> None:
        with self._changed:
            back, self._fault, self._moved = self._fault is not None, None, time.monotonic()
            if self._queue and self._queue[0] is write:
                self._queue.popleft()
            left = len(self._queue)
            self._changed.notify_all()
        if back and not self._abandoned:
            took = time.monotonic() - self._away_since
            rest = f"; {_writes(left)} that waited follow now" if left else ""
            self.tell(f"{self.name} is back after {took:.0f} s{rest}")


def _writes(number: int) -> str:
    return f"{number} write{'s' * (number != 1)}"
