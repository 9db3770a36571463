"""`interrupted.txt` in the folder of a search or a trial: how it ended and how it goes on, until it is resumed.

What the terminal is told is lost where the terminal was closed.
"""

from __future__ import annotations

import contextlib
import shlex
import time
from pathlib import Path

from faar_ray import interrupts
from faar_ray.storage.atomic import atomic_write

NOTE = "interrupted.txt"


def described(fault: BaseException) -> str:
    """What ended a command, for the note."""
    return str(fault) or f"interrupted by {interrupts.cause()}"


def write_note(folder: Path, cause: str, command: str) -> Path | None:
    """Write the note; None where that is not possible.

    Args:
        folder: of the run or trial.
        cause: what ended it.
        command: continues it from the working directory.
    """
    path = folder / NOTE
    when, here = time.strftime("%Y-%m-%d %H:%M:%S"), shlex.quote(str(Path.cwd()))
    text = f"{when}: {cause}\ncontinue with:\n  cd {here} && {command}\n"
    with contextlib.suppress(OSError), atomic_write(path) as scratch:
        scratch.write_text(text, encoding="utf-8")
        return path
    return None


def read_note(folder: Path) -> str:
    """What the note says, "" where there is none."""
    try:
        return (folder / NOTE).read_text(encoding="utf-8").strip()
    except (OSError, UnicodeDecodeError):
        return ""


def clear_note(folder: Path) -> None:
    """Remove the note: what it speaks of goes on."""
    with contextlib.suppress(OSError):
        (folder / NOTE).unlink(missing_ok=True)
