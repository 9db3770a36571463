"""Where Ray keeps its sockets, whose paths the operating system limits to 107 bytes (103 on macOS)."""

from __future__ import annotations

import os
import stat
import sys
import tempfile
from pathlib import Path

from faar_ray.errors import ConfigError

LONGEST_SOCKET = 103 if sys.platform == "darwin" else 107
SESSION = "session_2026-01-31_23-59-59_999999_4194304/sockets/plasma_store_99"
"""The longest socket below Ray's folder: time, microseconds and process id of the session."""


def use_short_ray_folder() -> None:
    """Set RAY_TMPDIR where Ray's folder (`$RAY_TMPDIR/ray`, `$TMPDIR/ray`, `/tmp/ray`) is too long or not writable.

    It names a private folder in a short place then, also for the processes that Ray starts.

    Raises:
        ConfigError: there is no place for one.
    """
    variable = next((name for name in ("RAY_TMPDIR", "TMPDIR") if name in os.environ), "")
    own = Path(os.environ.get(variable, "/tmp")) / "ray"
    if own.is_absolute() and is_short(own) and _is_writable(own):
        return

    runtime = os.environ.get("XDG_RUNTIME_DIR")
    places = [Path(f"/tmp/faar_ray-user{os.getuid()}"), *([Path(runtime) / "faar_ray"] if runtime else [])]
    for place in places:
        folder = place / "ray"  # which Ray opens to everybody
        if place.is_absolute() and is_short(folder) and _is_private(place):
            os.environ["RAY_TMPDIR"] = str(place)
            return
    tried = " and ".join(map(str, places))
    raise ConfigError(
        f"{variable or '/tmp'}: Ray's sockets fit neither there nor in {tried}; set RAY_TMPDIR to a short folder"
    )


def is_short(folder: Path) -> bool:
    """Whether the sockets of a session of Ray fit below it."""
    return len(os.fsencode(folder / SESSION)) <= LONGEST_SOCKET


def _is_writable(folder: Path) -> bool:
    """Whether it is a folder in which files can be made, or can become one."""
    while not folder.exists() and folder != folder.parent:
        folder = folder.parent
    try:
        tempfile.TemporaryFile(dir=folder).close()
    except OSError:
        return False
    return True


def _is_private(folder: Path) -> bool:
    """Make the folder; whether nobody else can use it."""
    try:
        folder.mkdir(mode=0o700, exist_ok=True)
        found = folder.lstat()
    except OSError:
        return False
    return stat.S_ISDIR(found.st_mode) and found.st_uid == os.getuid() and not stat.S_IMODE(found.st_mode) & 0o077
