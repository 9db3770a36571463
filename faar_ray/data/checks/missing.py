"""Files that a data set lacks, found by listing folders: quick enough to do before every search."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path

from faar_ray.data.datasets import FilePaths, Reader
from faar_ray.data.photographs.listing import Listing


@dataclass(frozen=True, slots=True)
class MissingFiles:
    """Files of the image or of a task that are not there."""

    name: str
    """`image` or a task."""
    paths: tuple[Path, ...]
    """Those missing, in the order of the samples."""
    total: int
    """How many there should be."""

    def __str__(self) -> str:
        """A line for people."""
        count, total = f"{len(self.paths):,}", f"{self.total:,}"
        if len(self.paths) == self.total and self.name != "image":
            mend = f"; if there are none, leave {self.name} out of the tasks"
        else:
            mend = ""
        return f"{self.name}: {count} of {total} files are missing, first {self.paths[0]}{mend}"


def missing_files(readers: Iterable[Reader], names: Sequence[str]) -> list[MissingFiles]:
    """What is missing of splits, by quantity; nothing is decoded.

    Args:
        readers: of the splits; of those that do not read files nothing is missing.
        names: `image` and tasks.
    """
    listing, wanted = Listing(), {name: dict[Path, None]() for name in names}
    for reader in readers:
        if not isinstance(reader, FilePaths):
            continue
        for name in names:
            wanted[name] |= dict.fromkeys(path for i in range(len(reader)) for path in reader.files(i, name))

    found = []
    for name, paths in wanted.items():
        if missing := tuple(path for path in paths if listing.find(path) is None):
            found.append(MissingFiles(name, missing, len(paths)))
    return found
