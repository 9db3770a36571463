"""A folder of this machine and its twin in object storage; a file is the same where size and time are.

Each side can be made equal to the other, part by part: `push` makes the twin what the folder is, `pull` the folder what
the twin is. All code works on the folder; the twin is what survives the machine.
"""

from __future__ import annotations

import os
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from pyarrow.fs import FileInfo

from faar_ray.storage.atomic import storage_error_on_oserror
from faar_ray.storage.object_store import Remote, hidden


class Mirror:
    """The twin of a folder.

    Args:
        uri: of the twin.
        folder: of this machine; need not exist yet.
    """

    def __init__(self, uri: str, folder: Path) -> None:
        self.uri, self.folder = uri, folder
        self.remote = Remote(uri)

    def push(self, *parts: str) -> None:
        """Make the twin of each part (a file or a folder, relative) what it is here.

        New files go up before old ones are deleted, so that there is always one good checkpoint.

        Raises:
            StorageError: naming the twin.
        """
        for part in parts:
            here, there = dict(self._here(part)), self.remote.files(part)
            for name, path in here.items():
                self._send(name, path, there.get(name))
            for name in there.keys() - here.keys():
                self.remote.delete(name)

    def pull(self, *parts: str) -> None:
        """Make each part here what its twin is.

        Raises:
            StorageError: naming the twin, or what cannot be written here.
        """
        for part in parts:
            here, there = dict(self._here(part)), self.remote.files(part)
            for name, info in there.items():
                if not _same(self.folder / name, info):
                    self.remote.download(name, self.folder / name, info)
            for name in here.keys() - there.keys():
                with storage_error_on_oserror(here[name]):
                    here[name].unlink(missing_ok=True)

    def _here(self, part: str) -> Iterator[tuple[str, Path]]:
        top = self.folder / part
        for path in [top] if top.is_file() else sorted(top.rglob("*")):
            name = path.relative_to(self.folder).as_posix()
            if path.is_file() and not hidden(name):
                yield name, path

    def _send(self, name: str, path: Path, there: FileInfo | None) -> None:
        """Put a file, and give the file here the time that it has there; a file replaced meanwhile keeps its own."""
        if there is not None and _same(path, there):
            return
        try:
            file = path.open("rb")
        except FileNotFoundError:  # a trial of this machine that drops a checkpoint now
            return
        with file:
            info = self.remote.upload(name, file)
            os.utime(file.fileno(), ns=(info.mtime_ns, info.mtime_ns))


def _same(path: Path, info: FileInfo) -> bool:
    try:
        here = path.stat()
    except OSError:
        return False
    return (here.st_size, here.st_mtime_ns) == (info.size, info.mtime_ns)


@dataclass(frozen=True)
class RemoteCopy:
    """The parts of a run that one trial writes; does nothing where the run is kept on this machine."""

    mirror: Mirror | None = None
    parts: tuple[str, ...] = ()

    def pull(self) -> None:
        """Take what another machine left, before anything is read."""
        if self.mirror is not None:
            self.mirror.pull(*self.parts)

    def push(self) -> None:
        """Leave what another machine would need, before the epoch is told to anybody."""
        if self.mirror is not None:
            self.mirror.push(*self.parts)


NO_REMOTE = RemoteCopy()
