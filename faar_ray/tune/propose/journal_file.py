"""Optuna's journal file with one writer, and transactions: several lines that reach the disk together."""

from __future__ import annotations

import contextlib
import json
import os
from collections.abc import Generator, Iterator
from contextlib import AbstractContextManager, contextmanager, nullcontext
from pathlib import Path
from typing import Any

import optuna
from optuna.storages.journal import JournalFileBackend


class JournalFile(JournalFileBackend):
    """Optuna's own file format, without its lock: the run's lock keeps other drivers out.

    Nor is anything read again that was written through this object.

    Args:
        path: the file; made when missing.
    """

    def __init__(self, path: Path) -> None:
        super().__init__(str(path))
        self.path = path
        self._unread: list[str] = []
        self._unwritten: list[str] = []
        self._open_transactions = 0

    @contextmanager
    def transaction(self) -> Iterator[None]:
        """Write what the block appends at its end, however it ends; of a driver killed before that, nothing."""
        self._open_transactions += 1
        try:
            yield
        finally:
            self._open_transactions -= 1
            if not self._open_transactions:
                self.write()

    def append_logs(self, logs: list[dict[str, Any]]) -> None:
        """Append lines: on disk at the end of the transaction, at once outside of one."""
        lines = [json.dumps(log, separators=(",", ":")) for log in logs]
        self._unread += lines
        self._unwritten += lines
        if not self._open_transactions:
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
        """Write the appended lines and wait for the disk.

        Raises:
            OSError: nothing was written; the lines are kept for the next try.
        """
        if not self._unwritten:
            return
        size = self.path.stat().st_size
        try:
            with self.path.open("ab") as file:
                file.write("".join(line + "\n" for line in self._unwritten).encode())
                file.flush()
                os.fsync(file.fileno())
        except OSError:  # a later transaction must not follow half of this one
            with contextlib.suppress(OSError):
                os.truncate(self.path, size)
            raise
        self._unwritten = []


def transaction(study: optuna.Study) -> AbstractContextManager[None]:
    """Make the block's changes of a study one write to its journal; they may be nested. In memory there is no need."""
    backend = getattr(study._storage, "_backend", None)
    return backend.transaction() if isinstance(backend, JournalFile) else nullcontext()
