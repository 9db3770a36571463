"""Files appear whole or not at all."""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from faar_ray.errors import ConfigError


def must_be_new(path: Path, option: str = "--out") -> None:
    """Refuse to write over what is there.

    Raises:
        ConfigError: naming the path.
    """
    if path.exists():
        raise ConfigError(f"{option}: {path} exists and is not written over; give another path or remove it")


@contextmanager
def writing(path: Path, option: str = "--out") -> Iterator[None]:
    """Tell what the system refuses in the block as a fault of the given path.

    Raises:
        ConfigError: naming the path and the reason.
    """
    try:
        yield
    except OSError as error:
        raise ConfigError(f"{option}: {path} cannot be written ({error.strerror})") from error


@contextmanager
def replacing(path: Path) -> Iterator[Path]:
    """Give a temporary path beside `path` to write to; put it in place when the block ends without an error."""
    path.parent.mkdir(parents=True, exist_ok=True)
    scratch = path.with_name(f".{path.name}.{os.getpid()}.tmp")
    try:
        yield scratch
        os.replace(scratch, path)
    finally:
        scratch.unlink(missing_ok=True)


def leftovers(folder: Path, name: str = "*") -> list[Path]:
    """Temporary files beside `folder/<name>` that a killed writer left: the caller knows of no living one."""
    return sorted(folder.glob(f".{name}.*.tmp"))


def clear_leftovers(folder: Path, name: str = "*") -> None:
    """Remove `leftovers`; a writer that was thought dead and is not fails at its next `os.replace`, which ends it."""
    for path in leftovers(folder, name):
        path.unlink(missing_ok=True)
