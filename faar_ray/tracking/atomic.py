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
def replacing(path: Path) -> Iterator[Path]:
    """Give a temporary path beside `path` to write to; put it in place when the block ends without an error."""
    path.parent.mkdir(parents=True, exist_ok=True)
    scratch = path.with_name(f".{path.name}.{os.getpid()}.tmp")
    try:
        yield scratch
        os.replace(scratch, path)
    finally:
        scratch.unlink(missing_ok=True)
