"""Object storage through pyarrow.fs: files below one URI. An object appears whole or not at all (a PUT is atomic).

Credentials come from where the AWS libraries look for them (environment, profile, instance role) and are written
nowhere; `AWS_ENDPOINT_URL_S3` or `AWS_ENDPOINT_URL` leads to another server than Amazon's, such as MinIO.
"""

from __future__ import annotations

import mmap
import os
import shutil
import uuid
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import IO, Any

import pyarrow as pa
from pyarrow import fs

from faar_ray.errors import ConfigError, StorageError
from faar_ray.storage.atomic import atomic_write_or_storage_error, reason_of

ATTEMPTS = 6
"""Of a request while a run goes on, about 15 s; an outage that is longer ends the run."""
ATTEMPTS_AT_START = 2
CONNECT_S, REQUEST_S = 5, 15
"""A request is given up after so long without a byte."""


def endpoint() -> str:
    """The server that the environment names, "" for Amazon's."""
    return os.environ.get("AWS_ENDPOINT_URL_S3") or os.environ.get("AWS_ENDPOINT_URL") or ""


class Remote:
    """What is below one URI, by names relative to it.

    Args:
        uri: `s3://bucket/prefix`, checked by the config.
        attempts: of every request.
        key: of the config that names the URI, for messages.
    """

    def __init__(self, uri: str, attempts: int = ATTEMPTS, key: str = "storage.path") -> None:
        self.uri, self.key = uri.rstrip("/"), key
        self._base = self.uri.partition("://")[2]
        with self._telling("cannot be used"):
            self._files = fs.S3FileSystem(
                endpoint_override=endpoint() or None,
                connect_timeout=CONNECT_S,
                request_timeout=REQUEST_S,
                retry_strategy=fs.AwsStandardS3RetryStrategy(max_attempts=attempts),
                allow_delayed_open=True,  # a small file is one request
            )

    def check(self) -> None:
        """Refuse, in bounded time, a bucket that is not there or cannot be written.

        Raises:
            ConfigError: naming the key and the reason.
        """
        bucket = self._base.partition("/")[0]
        try:
            with self._telling("cannot be used"):
                if self._files.get_file_info(bucket).type == fs.FileType.NotFound:
                    raise StorageError(f"{self.key}: {self.uri}: there is no bucket {bucket}{self._where()}")
            self.now_ns()
        except StorageError as fault:
            raise ConfigError(str(fault)) from None

    def now_ns(self) -> int:
        """The storage's own clock, in ns: no two machines need to agree on the time."""
        name = f".probe-{uuid.uuid4().hex}"
        self.write(name, b"")
        try:
            return int(self.info(name).mtime_ns)
        finally:
            self.delete(name)

    def info(self, name: str) -> fs.FileInfo:
        """Type, size and time of one name."""
        with self._telling("cannot be read"):
            return self._files.get_file_info(f"{self._base}/{name}")

    def files(self, part: str = "") -> dict[str, fs.FileInfo]:
        """The files at or below a part, by name; names that begin with a dot are nobody's business."""
        with self._telling("cannot be read"):
            path = f"{self._base}/{part}".rstrip("/")
            if part and (info := self._files.get_file_info(path)).type == fs.FileType.File:
                return {part: info}
            found = self._files.get_file_info(fs.FileSelector(path, recursive=True, allow_not_found=True))
        names = {info.path.removeprefix(f"{self._base}/"): info for info in found if info.type == fs.FileType.File}
        return {name: info for name, info in names.items() if not hidden(name)}

    def read(self, name: str) -> bytes | None:
        """A small file; None where there is none."""
        with (
            self._telling("cannot be read"),
            suppress(FileNotFoundError),
            self._files.open_input_stream(f"{self._base}/{name}") as stream,
        ):
            return bytes(stream.read())
        return None

    def write(self, name: str, data: bytes) -> None:
        """Put a small file."""
        self._put(name, data)

    def upload(self, name: str, file: IO[bytes]) -> fs.FileInfo:
        """Put an open file; gives what is there then."""
        size = os.fstat(file.fileno()).st_size
        if not size:
            self._put(name, b"")
            return self.info(name)
        mapped = mmap.mmap(file.fileno(), size, access=mmap.ACCESS_READ)
        self._put(name, mapped)  # a fault holds on to the map, and closing it then would be a fault of its own
        mapped.close()
        return self.info(name)

    def download(self, name: str, path: Path, info: fs.FileInfo) -> None:
        """Get a file, whole, with the time that it has there."""
        with atomic_write_or_storage_error(path) as scratch:
            with scratch.open("wb") as file, self._reading(name) as stream:
                shutil.copyfileobj(stream, file, 1 << 20)
            if scratch.stat().st_size != info.size:
                raise StorageError(f"{self.key}: {self.uri}/{name} cannot be read (it changed meanwhile)")
            os.utime(scratch, ns=(info.mtime_ns, info.mtime_ns))

    def delete(self, name: str) -> None:
        """Take a file away, if it is there."""
        with self._telling("cannot be written"), suppress(FileNotFoundError):
            self._files.delete_file(f"{self._base}/{name}")

    def clear(self) -> None:
        """Take everything below the URI away."""
        with self._telling("cannot be written"), suppress(FileNotFoundError):
            self._files.delete_dir(self._base)

    def _put(self, name: str, data: bytes | mmap.mmap) -> None:
        with self._telling("cannot be written"):
            stream = self._files.open_output_stream(f"{self._base}/{name}", metadata=None)
            buffer = pa.py_buffer(data)
            stream.write(buffer)  # not in a `with`: that would complete the object after a fault as well
            stream.close()
            del buffer

    @contextmanager
    def _reading(self, name: str) -> Iterator[Any]:
        with self._telling("cannot be read"):
            stream = self._files.open_input_stream(f"{self._base}/{name}")
        with stream:
            yield _Telling(stream, self)

    @contextmanager
    def _telling(self, what: str) -> Iterator[None]:
        try:
            yield
        except FileNotFoundError:
            raise
        except (OSError, pa.ArrowException) as fault:
            raise StorageError(f"{self.key}: {self.uri} {what} ({self._reason(fault)})") from None

    def _reason(self, fault: Exception) -> str:
        text = reason_of(fault) if isinstance(fault, OSError) else str(fault).splitlines()[0]
        if "ACCESS_DENIED" in text or "INVALID_ACCESS_KEY" in text or "SIGNATURE" in text:
            text += "; credentials come from the environment, the AWS profile or the machine's role"
        return f"{text}{self._where()}"

    def _where(self) -> str:
        return f" at {endpoint()}" if endpoint() else ""


class _Telling:
    """A stream whose faults are the storage's, not the local disk's."""

    def __init__(self, stream: Any, remote: Remote) -> None:
        self._stream, self._remote = stream, remote

    def read(self, size: int) -> bytes:
        """Up to `size` bytes."""
        with self._remote._telling("cannot be read"):
            return bytes(self._stream.read(size))


def hidden(name: str) -> bool:
    """Whether a relative name is temporary or a lock: nothing that the other side needs."""
    return any(part.startswith(".") for part in name.split("/"))
