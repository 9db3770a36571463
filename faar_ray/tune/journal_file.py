"""Optuna's journal file with one writer: an event of the search is one write and one fsync, not one for every line."""

from __future__ import annotations

import json
import os
from collections.abc import Generator, Iterator
from contextlib import contextmanager
from contextvars import ContextVar
from pathlib import Path
from typing import Any

from optuna.storages.journal import JournalFileBackend


class JournalFile(JournalFileBackend):
    """Optuna's own file and format, for one storage: the run's lock keeps other drivers out, so that no lock is taken
    for a line, and what was written here is not read again.

    Args:
        path: the file; made when missing.
    """

    def __init__(self, path: Path) -> None:
        super().__init__(str(path))
        self.path = path
        self._unread: list[str] = []
        self._unwritten: list[str] = []

    def append_logs(self, logs: list[dict[str, Any]]) -> None:
        """Take lines; they are on disk at the end of the event, or now where there is none."""
        lines = [json.dumps(log, separators=(",", ":")) for log in logs]
        self._unread += lines
        self._unwritten += lines
        if (files := _EVENT.get()) is not None:
            files.add(self)
        else:
            self.write()

    def read_logs(self, log_number_from: int) -> Generator[dict[str, Any], None, None]:
        """The file at first, then what was appended since."""
        if log_number_from == 0:
            self.write()
            self._unread.clear()
            yield from super().read_logs(0)
        while self._unread:
            yield json.loads(self._unread.pop(0))

    def write(self) -> None:
        """Make what was taken durable."""
        lines, self._unwritten = self._unwritten, []
        if lines:
            with self.path.open("ab") as file:
                file.write("".join(line + "\n" for line in lines).encode())
                file.flush()
                os.fsync(file.fileno())


_EVENT: ContextVar[set[JournalFile] | None] = ContextVar("event", default=None)


@contextmanager
def event() -> Iterator[None]:
    """What the block appends is on disk at its end, however it ends; of a driver killed before, nothing is."""
    if _EVENT.get() is not None:
        yield
        return
    files = set[JournalFile]()
    token = _EVENT.set(files)
    try:
        yield
    finally:
        _EVENT.reset(token)
        for file in files:
            file.write()
