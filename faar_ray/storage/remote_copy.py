"""A folder of this machine and its copy in object storage; a file is the same where size and time are.

Each side can be made equal to the other, part by part: `push` makes the copy what the folder is, `pull` the folder what
the copy is. All code works on the folder; the copy is what survives the machine.
"""

from __future__ import annotations

import os
from collections.abc import Iterator
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path

from faar_ray.storage.atomic import storage_error_on_oserror
from faar_ray.storage.object_store import ObjectInfo, ObjectStore, is_hidden


@dataclass(frozen=True)
class RemoteCopy:
    """The copy of a folder in object storage; does nothing where there is none.

    Args:
        uri: of the copy; "" for none.
        folder: of this machine; need not exist yet.
        parts: what `push` and `pull` copy unless others are given.
    """

    uri: str
    folder: Path
    parts: tuple[str | Path, ...] = ()

    @cached_property
    def store(self) -> ObjectStore:
        """The objects of the copy."""
        return ObjectStore(self.uri)

    def push(self, *parts: str | Path) -> None:
        """Make the copy of each part (a file or a folder) what it is on this machine; only what changed is sent.

        New files go up before old ones are deleted, so that there is always one good checkpoint.

        Raises:
            StorageError: naming the copy.
        """
        for part in self._names(parts):
            local, remote = dict(self._local(part)), self.store.files(part)
            for name, path in local.items():
                self._send(name, path, remote.get(name))
            for name in remote.keys() - local.keys():
                self.store.delete(name)

    def pull(self, *parts: str | Path) -> None:
        """Make each part on this machine what its copy is; only what changed is fetched.

        Raises:
            StorageError: naming the copy, or what cannot be written on this machine.
        """
        for part in self._names(parts):
            local, remote = dict(self._local(part)), self.store.files(part)
            for name, info in remote.items():
                if not _same(self.folder / name, info):
                    self.store.download(name, self.folder / name, info)
            for name in local.keys() - remote.keys():
                with storage_error_on_oserror(local[name]):
                    local[name].unlink(missing_ok=True)

    def _names(self, parts: tuple[str | Path, ...]) -> list[str]:
        """Parts relative to the folder, "" for all of it; none where there is no copy."""
        if not self.uri:
            return []
        names = [(self.folder / part).relative_to(self.folder).as_posix() for part in parts or self.parts]
        return ["" if name == "." else name for name in names]

    def _local(self, part: str) -> Iterator[tuple[str, Path]]:
        top = self.folder / part
        for path in [top] if top.is_file() else sorted(top.rglob("*")):
            name = path.relative_to(self.folder).as_posix()
            if path.is_file() and not is_hidden(name):
                yield name, path

    def _send(self, name: str, path: Path, remote: ObjectInfo | None) -> None:
        """Upload a file and give it the time of its copy; a file replaced meanwhile keeps its own."""
        if remote is not None and _same(path, remote):
            return
        try:
            file = path.open("rb")
        except FileNotFoundError:  # a trial of this machine drops a checkpoint at this moment
            return
        with file:
            info = self.store.upload(name, file)
            os.utime(file.fileno(), ns=(info.mtime_ns, info.mtime_ns))


def _same(path: Path, info: ObjectInfo) -> bool:
    try:
        local = path.stat()
    except OSError:
        return False
    return (local.st_size, local.st_mtime_ns) == (info.size, info.mtime_ns)


NO_REMOTE = RemoteCopy("", Path())
