"""Files appear whole or not at all."""

from __future__ import annotations

import os
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from faar_ray.errors import ConfigError, StorageError


def must_be_new(path: Path, option: str = "--out") -> None:
    """Refuse to write over what is there.

    Raises:
        ConfigError: naming the path.
    """
    if path.exists():
        raise ConfigError(f"{option}: {path} exists and is not written over; give another path or remove it")


@contextmanager
def config_error_on_oserror(path: Path, option: str = "--out") -> Iterator[None]:
    """Tell what the system refuses in the block as a fault of the given path.

    Raises:
        ConfigError: naming the path and the reason.
    """
    try:
        yield
    except OSError as error:
        raise ConfigError(f"{option}: {path} cannot be written ({error.strerror})") from error


def check_writable(folder: Path) -> None:
    """Refuse a folder that cannot be made or written to, and leave nothing behind.

    Raises:
        ConfigError: naming it and the reason.
    """
    made = not folder.exists()
    try:
        folder.mkdir(parents=True, exist_ok=True)
        tempfile.TemporaryFile(dir=folder).close()
        if made:
            folder.rmdir()
    except OSError as fault:
        raise ConfigError(f"storage.path: {folder} cannot be written ({reason_of(fault)})") from None


@contextmanager
def atomic_write(path: Path) -> Iterator[Path]:
    """Give a temporary path beside `path` to write to; put it in place when the block ends without an error."""
    path.parent.mkdir(parents=True, exist_ok=True)
    scratch = path.with_name(f".{path.name}.{os.getpid()}.tmp")
    try:
        yield scratch
        os.replace(scratch, path)
    finally:
        scratch.unlink(missing_ok=True)


def clear_leftovers(folder: Path, name: str = "*") -> None:
    """Remove temporary files beside `folder/<name>` that a killed writer left: the caller knows of no living one.

    A writer that was thought dead and is not fails at its next `os.replace`, which ends it.
    """
    for path in folder.glob(f".{name}.*.tmp"):
        path.unlink(missing_ok=True)


@contextmanager
def atomic_write_or_storage_error(path: Path) -> Iterator[Path]:
    """`atomic_write` for the files of a run: a disk that is full is an error of the storage, not of a trial.

    Raises:
        StorageError: naming the path and the reason.
    """
    with storage_error_on_oserror(path), atomic_write(path) as scratch:
        yield scratch


@contextmanager
def storage_error_on_oserror(path: Path) -> Iterator[None]:
    """Tell what the system refuses in the block as a fault of the storage.

    Raises:
        StorageError: naming the path and the reason.
    """
    try:
        yield
    except OSError as fault:
        raise StorageError(f"storage.path: {path} cannot be written ({reason_of(fault)})") from fault


def reason_of(fault: OSError) -> str:
    """The system's words, without the path or whatever else a library put around them."""
    return os.strerror(fault.errno) if fault.errno else (str(fault).splitlines() or [type(fault).__name__])[0]
