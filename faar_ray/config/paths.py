"""The cache of this machine, and the kinds of storage paths that a config may name."""

from __future__ import annotations

import os
import re
from pathlib import Path

STORAGE = "s3://BUCKET/PREFIX (or gs://, az://CONTAINER/PREFIX)"
BUCKETS = {
    "s3": ("a bucket's name as S3 takes it (3 to 63 of a-z, 0-9, '.', '-')", "[a-z0-9][a-z0-9.-]{1,61}[a-z0-9]"),
    "gs": ("a bucket's name as Google takes it (3 to 63 of a-z, 0-9, '.-_')", "[a-z0-9][a-z0-9._-]{1,61}[a-z0-9]"),
    "az": (
        "a container's name as Azure takes it (3 to 63 of a-z, 0-9, '-')",
        "(?![^/]*--)[a-z0-9][a-z0-9-]{1,61}[a-z0-9]",
    ),
}
"""Schemes of object storage: what a bucket's name must be, in words and as a pattern."""
PACKAGE = "package:"
"""Before the name of an installed Python package whose file `backbone.checkpoint` means."""


def default_cache_dir() -> Path:
    """`$FAAR_RAY_CACHE`, or ~/.cache/faar_ray."""
    return Path(os.environ.get("FAAR_RAY_CACHE") or Path.home() / ".cache" / "faar_ray").expanduser().absolute()


def is_remote(path: str) -> bool:
    """Whether a path is a URI, not a folder."""
    return "://" in path


def weights_path(checkpoint: str) -> str:
    """`backbone.checkpoint` for a process with another working directory: a file's absolute path, or a package."""
    return checkpoint if checkpoint.startswith(PACKAGE) else str(Path(checkpoint).expanduser().absolute())


def folder_of(path: str | None) -> Path | None:
    """The folder that a path names; None for None or a URI."""
    return None if path is None or is_remote(path) else Path(path).expanduser().absolute()


def storage_fault(path: str) -> str:
    """What is wrong with a storage path, "" for nothing; never quotes what may be a secret."""
    scheme, mark, rest = path.partition("://")
    if not mark and not path.startswith(tuple(f"{name}:" for name in BUCKETS)):
        return ""
    if "@" in rest.partition("/")[0] or "?" in rest:
        return f"must be {STORAGE} without user, key or options: credentials come from the environment"
    if not mark or scheme not in BUCKETS:
        return f"must be a folder or {STORAGE}, got {path!r}"

    words, pattern = BUCKETS[scheme]
    if not re.fullmatch(rf"{pattern}(/[^/#]+)*/?", rest):
        return f"must be {STORAGE} with {words}, got {path!r}"
    return ""
