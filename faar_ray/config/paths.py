"""Places: the cache of this machine, and what a config may name outside it."""

from __future__ import annotations

import os
import re
from pathlib import Path

STORAGE = "s3://BUCKET/PREFIX"


def default_cache_dir() -> Path:
    """`$FAAR_RAY_CACHE`, or ~/.cache/faar_ray."""
    return Path(os.environ.get("FAAR_RAY_CACHE") or Path.home() / ".cache" / "faar_ray").expanduser().absolute()


def is_remote(path: str) -> bool:
    """Whether a path is a URI and no folder."""
    return "://" in path


def folder_of(place: str | None) -> Path | None:
    """The folder that a place names; None where there is no place, or it is a URI."""
    return None if place is None or is_remote(place) else Path(place).expanduser().absolute()


def storage_fault(path: str) -> str:
    """What is wrong with a storage path as text, "" for nothing; never quotes what may be a secret."""
    scheme, mark, rest = path.partition("://")
    if not mark and not path.startswith("s3:"):
        return ""
    if "@" in rest.partition("/")[0] or "?" in rest:
        return f"must be {STORAGE} without user, key or options: credentials come from the environment"
    if not mark or scheme != "s3":
        return f"must be a folder or {STORAGE}, got {path!r}"
    if not re.fullmatch(r"[a-z0-9][a-z0-9.-]{1,61}[a-z0-9](/[^/#]+)*/?", rest):
        return f"must be {STORAGE} with a bucket's name as S3 takes it (3 to 63 of a-z, 0-9, '.', '-'), got {path!r}"
    return ""
