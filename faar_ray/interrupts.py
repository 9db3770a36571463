"""Ctrl-C, SIGTERM and SIGHUP (the terminal was closed): all raise KeyboardInterrupt; one that was swallowed, again.

Python raises it wherever the main thread is at that moment. In a destructor, in a weak reference's callback or in code
that catches everything it is swallowed, and the search would go on.
"""

from __future__ import annotations

import contextlib
import signal
from collections.abc import Iterator
from types import FrameType

_requested = False
_last = signal.SIGINT


def listen() -> None:
    """Handle the signals from now on; SIGHUP stays ignored where it is (`nohup`)."""
    global _requested
    _requested = False
    for number in (signal.SIGINT, signal.SIGTERM):
        signal.signal(number, _request)
    if signal.getsignal(signal.SIGHUP) is not signal.SIG_IGN:
        signal.signal(signal.SIGHUP, _request)


def _request(number: int, _frame: FrameType | None) -> None:
    global _requested, _last
    if number == signal.SIGHUP and _requested:
        return  # a closing terminal sends it twice, by its shell and by the system: the second must not disturb the end
    _requested, _last = True, signal.Signals(number)
    raise KeyboardInterrupt


def cause() -> str:
    """Name of the signal that came last; SIGINT before any."""
    return _last.name


def check() -> None:
    """Raise KeyboardInterrupt if a signal has arrived."""
    if _requested:
        raise KeyboardInterrupt


@contextlib.contextmanager
def hangups_held_back() -> Iterator[None]:
    """Let SIGHUP wait during the block; processes that it starts never get one, and end by their parent's word."""
    before = signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGHUP})
    try:
        yield
    finally:
        signal.pthread_sigmask(signal.SIG_SETMASK, before)
