"""Ctrl-C and SIGTERM: both raise KeyboardInterrupt, and one that was swallowed is raised again.

Python raises it wherever the main thread is at that moment. In a destructor, in a weak reference's callback or in code
that catches everything it is swallowed, and the search would go on.
"""

from __future__ import annotations

import signal
from types import FrameType

_requested = False


def listen() -> None:
    """Handle both signals from now on."""
    global _requested
    _requested = False
    for number in (signal.SIGINT, signal.SIGTERM):
        signal.signal(number, _request)


def _request(_signal: int, _frame: FrameType | None) -> None:
    global _requested
    _requested = True
    raise KeyboardInterrupt


def check() -> None:
    """Raise KeyboardInterrupt if a signal has arrived."""
    if _requested:
        raise KeyboardInterrupt
