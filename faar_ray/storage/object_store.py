"""Objects below one URI (s3://, gs:// or az://), through obstore. An object appears whole or not at all."""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from datetime import datetime, timedelta
from pathlib import Path
from typing import IO, Any
from uuid import uuid4

import obstore
from obstore.exceptions import AlreadyExistsError, BaseError, PreconditionError

from faar_ray.errors import ConfigError, StorageError
from faar_ray.storage.atomic import atomic_write_or_storage_error
from faar_ray.storage.credentials import CREDENTIAL_SOURCES, server, store_class, store_options
from faar_ray.storage.store_errors import is_credential_error, is_missing_bucket, reason

ATTEMPTS = 6
"""Of a request while a run goes on, about 15 s; a longer outage ends the run."""
ATTEMPTS_AT_START = 2
CONNECT_S, REQUEST_S = 5, 15
"""A request is given up after so long without an answer."""
RETRY_S = 60
"""No retry begins later: a lease must not expire while its driver still retries."""
PARALLEL_PARTS = 2
"""Of an upload, 5 MiB each; every part must arrive within REQUEST_S, so more would need a faster line."""


@dataclass(frozen=True)
class ObjectInfo:
    """Size in bytes and time in ns, to the second: listings and single requests round it differently."""

    size: int
    mtime_ns: int


@dataclass(frozen=True)
class VersionedObject:
    """A small object as it was read, and what names this version of it."""

    data: bytes
    mtime_ns: int
    version: dict[str, str]


class ObjectStore:
    """The objects below one URI, by names relative to it.

    Args:
        uri: `s3://bucket/prefix`, `gs://bucket/prefix` or `az://container/prefix`, checked by the config.
        attempts: of every request.
        key: of the config that names the URI, for messages.
    """

    def __init__(self, uri: str, attempts: int = ATTEMPTS, key: str = "storage.path") -> None:
        self.uri, self.key = uri.rstrip("/"), key
        self.scheme, _, rest = self.uri.partition("://")
        self.bucket, _, prefix = rest.partition("/")
        with self._translate_errors("cannot be used"):
            self._store = store_class(self.scheme)(
                self.bucket,
                prefix=prefix or None,
                client_options={
                    "allow_http": server(self.uri).startswith("http://"),
                    "connect_timeout": timedelta(seconds=CONNECT_S),
                    "read_timeout": timedelta(seconds=REQUEST_S),
                    "timeout": timedelta(hours=1),  # of a whole download
                },
                retry_config={
                    "max_retries": attempts - 1,
                    "retry_timeout": timedelta(seconds=RETRY_S),
                    "backoff": {"init_backoff": timedelta(seconds=1), "base": 2.5},
                },
                **store_options(self.scheme),
            )

    def check(self) -> None:
        """Refuse, in bounded time, a bucket that does not exist or cannot be written.

        Raises:
            ConfigError: naming the key and the reason.
        """
        try:
            with self._translate_errors("cannot be used"):
                next(iter(obstore.list(self._store, chunk_size=1)), None)
            self.now_ns()
        except StorageError as error:
            raise ConfigError(str(error)) from None

    def now_ns(self) -> int:
        """The store's own clock, in ns: the machines need not agree on the time."""
        name = f".probe-{uuid4().hex}"
        self.write(name, b"")
        try:
            return self._info(name).mtime_ns
        finally:
            self.delete(name)

    def files(self, part: str = "") -> dict[str, ObjectInfo]:
        """The objects at or below a part, by name, without hidden ones."""
        with self._translate_errors("cannot be read"):
            listing = [meta for page in obstore.list(self._store, part or None) for meta in page]
        if part and not listing:
            with self._translate_errors("cannot be read"), suppress(FileNotFoundError):
                return {part: _info_of(obstore.head(self._store, part))}
        return {meta["path"]: _info_of(meta) for meta in listing if not is_hidden(meta["path"])}

    def read(self, name: str) -> bytes | None:
        """A small object; None where there is none."""
        current = self.read_version(name)
        return None if current is None else current.data

    def read_version(self, name: str) -> VersionedObject | None:
        """A small object with its version; None where there is none."""
        with self._translate_errors("cannot be read"), suppress(FileNotFoundError):
            result = obstore.get(self._store, name)
            mtime_ns = _info_of(result.meta).mtime_ns
            return VersionedObject(bytes(result.bytes()), mtime_ns, _version_of(result.meta))
        return None

    def write(self, name: str, data: bytes) -> None:
        """Put a small object."""
        with self._translate_errors("cannot be written"):
            obstore.put(self._store, name, data)

    def write_if(self, name: str, data: bytes, version: dict[str, str] | None) -> dict[str, str] | None:
        """Put a small object only where the store still has this version of it, or none where `version` is None.

        Returns:
            the new version, or None where the store has another one.
        """
        with self._translate_errors("cannot be written"):
            try:
                mode: Any = "create" if version is None else version
                return _version_of(obstore.put(self._store, name, data, mode=mode))
            except (AlreadyExistsError, PreconditionError):
                return None
            except FileNotFoundError:  # S3's answer to a version of an object that was deleted
                if version is None:
                    raise
                return None

    def upload(self, name: str, file: IO[bytes]) -> ObjectInfo:
        """Put an open file; gives what the store has then."""
        with self._translate_errors("cannot be written"):
            obstore.put(self._store, name, file, max_concurrency=PARALLEL_PARTS)
        return self._info(name)

    def download(self, name: str, path: Path, info: ObjectInfo) -> None:
        """Get a whole object, with the time that it has in the store."""
        with atomic_write_or_storage_error(path) as scratch:
            with scratch.open("wb") as file:
                for chunk in self._chunks(name):
                    file.write(chunk)
            if scratch.stat().st_size != info.size:
                raise StorageError(f"{self.key}: {self.uri}/{name} cannot be read (it changed meanwhile)")
            os.utime(scratch, ns=(info.mtime_ns, info.mtime_ns))

    def delete(self, name: str) -> None:
        """Remove an object, if it exists."""
        with self._translate_errors("cannot be written"), suppress(FileNotFoundError):
            obstore.delete(self._store, name)

    def clear(self) -> None:
        """Remove every object below the URI."""
        with self._translate_errors("cannot be written"):
            names = [meta["path"] for page in obstore.list(self._store) for meta in page]
            obstore.delete(self._store, names)

    def _info(self, name: str) -> ObjectInfo:
        with self._translate_errors("cannot be read"):
            return _info_of(obstore.head(self._store, name))

    def _chunks(self, name: str) -> Iterator[Any]:
        with self._translate_errors("cannot be read"):
            yield from obstore.get(self._store, name).stream(min_chunk_size=1 << 20)

    @contextmanager
    def _translate_errors(self, what: str) -> Iterator[None]:
        """Raise StorageError for an error of obstore: what failed, why and where, without a URL or a secret."""
        try:
            yield
        except (BaseError, OSError, ValueError) as error:
            address = server(self.uri)
            where = f" at {address}" if address else ""
            if is_missing_bucket(error):
                raise StorageError(f"{self.key}: {self.uri}: there is no bucket {self.bucket}{where}") from None

            text = f"{reason(error)}{where}"
            if is_credential_error(error):
                text += f"; credentials come from {CREDENTIAL_SOURCES[self.scheme]}"
            raise StorageError(f"{self.key}: {self.uri} {what} ({text})") from None


def is_hidden(name: str) -> bool:
    """Whether a relative name is a lock, a lease or a temporary file, which are not copied."""
    return any(part.startswith(".") for part in name.split("/"))


def _info_of(meta: Any) -> ObjectInfo:
    modified: datetime = meta["last_modified"]
    return ObjectInfo(meta["size"], int(modified.timestamp()) * 1_000_000_000)


def _version_of(meta: Any) -> dict[str, str]:
    return {name: meta[name] for name in ("e_tag", "version") if meta.get(name) is not None}
