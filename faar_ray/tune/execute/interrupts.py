"""Ctrl-C and SIGTERM: both raise KeyboardInterrupt, and one that was lost is raised again.

Python raises it wherever the main thread happens to be; in a destructor, in a weak reference's callback or in foreign
code that catches everything it is swallowed, and the search would go on as if nobody had asked.
"""

from __future__ import annotations

import signal
from types import FrameType

_asked = False


def listen() -> None:
    """Take both signals from here on."""
    global _asked
    _asked = False
    for number in (signal.SIGINT, signal.SIGTERM):
        signal.signal(number, _ask)


def _ask(_signal: int, _frame: FrameType | None) -> None:
    global _asked
    _asked = True
    raise KeyboardInterrupt


def check() -> None:
    """Raise KeyboardInterrupt if one was asked for."""
    if _asked:
        raise KeyboardInterrupt
