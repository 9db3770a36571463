"""Names in folders, each read once."""

from __future__ import annotations

import os
from pathlib import Path
from typing import NamedTuple

from faar_ray.errors import DataError


class Names(NamedTuple):
    """What a folder holds."""

    folder: Path
    exact: frozenset[str]
    by_lower_case: dict[str, str]


class Listing:
    """Finds files by what their folders list: quicker than asking for each file, and whatever the case of names."""

    def __init__(self) -> None:
        self._folders: dict[Path, Names] = {}

    def find(self, path: Path) -> Path | None:
        """A file or folder, also where it or its folder is written in another case; None where there is none.

        Raises:
            DataError: a folder that cannot be listed.
        """
        parent = path.parent
        names = self._folders.get(parent)
        if names is None:
            names = self._folders[parent] = self._list(parent)
        if path.name in names.exact:
            return path if names.folder is parent else names.folder / path.name
        actual = names.by_lower_case.get(path.name.lower())
        return None if actual is None else names.folder / actual

    def _list(self, folder: Path) -> Names:
        actual: Path | None = folder
        if not folder.is_dir():
            actual = None if folder == folder.parent else self.find(folder)
        if actual is None or not actual.is_dir():
            return Names(folder, frozenset(), {})
        try:
            names = os.listdir(actual)
        except OSError as error:
            raise DataError(f"{actual}: cannot be listed ({error.strerror})") from error
        return Names(actual, frozenset(names), {name.lower(): name for name in names})
