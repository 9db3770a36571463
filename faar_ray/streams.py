"""Output that nobody reads any more is dropped: `| head`, a pager that was left, a terminal that was closed."""

from __future__ import annotations

import contextlib
import errno
import io
import os
import sys
from typing import TextIO

READER_GONE = {errno.EPIPE, errno.ECONNRESET}
TERMINAL_GONE = {errno.EIO, errno.ENXIO}


def drop_unread_output() -> None:
    """Let writes to stdout and stderr succeed from now on, also when their reader has gone; a full disk is an error.

    A stream that was closed before the start (`>&-`) leads nowhere too. Streams that something has replaced (a test, a
    notebook) stay.
    """
    for name in ("stdout", "stderr"):
        stream, original = getattr(sys, name), getattr(sys, f"__{name}__")
        if stream is original:
            setattr(sys, name, _lenient(stream) if stream is not None else open(os.devnull, "w"))  # noqa: SIM115


def _lenient(stream: TextIO) -> TextIO:
    if not isinstance(stream, io.TextIOWrapper):
        return stream
    raw = _LenientFile(stream.fileno(), "w", closefd=False)
    unbuffered = stream.write_through  # python -u
    return io.TextIOWrapper(
        raw if unbuffered else io.BufferedWriter(raw),  # type: ignore[type-var]
        encoding=stream.encoding,
        errors=stream.errors,
        line_buffering=stream.line_buffering,
        write_through=unbuffered,
    )


class _LenientFile(io.FileIO):
    """A file whose descriptor leads to /dev/null once its reader has gone: C libraries write to it too."""

    def __init__(self, fd: int, mode: str, *, closefd: bool) -> None:
        super().__init__(fd, mode, closefd=closefd)
        self._gone = READER_GONE | (TERMINAL_GONE if self.isatty() else set())

    def write(self, data: bytes, /) -> int | None:  # type: ignore[override]
        """Write, or drop where nobody reads."""
        try:
            return super().write(data)
        except OSError as error:
            if error.errno not in self._gone:
                raise
        with contextlib.suppress(OSError):
            nowhere = os.open(os.devnull, os.O_WRONLY)
            os.dup2(nowhere, self.fileno())
            os.close(nowhere)
        return len(data)
