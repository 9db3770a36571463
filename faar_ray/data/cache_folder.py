"""Folders of this machine's cache, which several processes fill."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from filelock import FileLock

from faar_ray.errors import DataError


@contextmanager
def locked_cache_folder(folder: Path) -> Iterator[None]:
    """Make the folder and hold its lock, which keeps other processes waiting.

    Raises:
        DataError: it cannot be written, or what the block writes cannot.
    """
    try:
        folder.mkdir(parents=True, exist_ok=True)
        with FileLock(folder / ".lock"):
            yield
    except OSError as error:
        raise unwritable(folder, error) from error


def unwritable(path: Path, error: OSError) -> DataError:
    """The fault of a place in the cache that cannot be written."""
    return DataError(f"{path}: cannot be written ({error}); set FAAR_RAY_CACHE to a folder that can be")
