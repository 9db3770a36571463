"""dataset.json: what a folder of packed shards holds. It is written last, so a folder that has one is whole."""

from __future__ import annotations

import hashlib
from pathlib import Path
from typing import Any

from pydantic import ValidationError

from faar_ray.config.section import Section
from faar_ray.config.task_definitions import TaskDefinition
from faar_ray.errors import DataError

MANIFEST = "dataset.json"
FORMAT = 1
ROW_GROUP_IMAGES = 8
"""Images that are read together, at most."""


class Shard(Section):
    """One Parquet file."""

    file: str
    images: int
    bytes: int
    sha256: str


class Manifest(Section):
    """A packed data set."""

    format: int
    name: str
    """The data set, as `data.name` has it."""
    tasks: dict[str, TaskDefinition]
    own_definitions: bool
    """Whether the tasks are the data set's own (`folder`), not those that `data.name` stands for."""
    options: dict[str, Any]
    """How it was packed: size, compact."""
    splits: dict[str, list[Shard]]
    """The published splits; without `test`, the published val serves as test (`data.protocol`)."""

    @property
    def shards(self) -> list[Shard]:
        """Of all splits."""
        return [shard for shards in self.splits.values() for shard in shards]

    def images(self, split: str) -> int:
        """Number of images of a published split."""
        return sum(shard.images for shard in self.splits.get(split, ()))


def is_packed(folder: Path) -> bool:
    """Whether a folder holds packed shards."""
    return (folder / MANIFEST).is_file()


def read_manifest(folder: Path) -> Manifest:
    """What a folder of packed shards holds.

    Raises:
        DataError: the manifest is missing, damaged, or of another version.
    """
    path = folder / MANIFEST
    try:
        return parse_manifest(path.read_bytes(), str(path))
    except OSError as error:
        raise DataError(f"{path}: cannot be read ({error.strerror})") from error


def parse_manifest(content: bytes, source: str) -> Manifest:
    """A manifest from its bytes; `source` names it in errors.

    Raises:
        DataError: it is damaged, or of another version.
    """
    try:
        manifest = Manifest.model_validate_json(content)
    except ValidationError as error:
        first = error.errors()[0]
        where = ".".join(map(str, first["loc"])) or "JSON"
        raise DataError(f"{source}: damaged ({where}: {first['msg']}); pack the data again") from None
    if manifest.format != FORMAT:
        raise DataError(f"{source}: format must be {FORMAT}, got {manifest.format}; pack the data again")
    return manifest


def file_digest(path: Path) -> str:
    """sha256 of a file."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()
