"""One driver at a time: the object `.lease` in the store says who holds a run, as a lock does on one machine.

It names driver, host and process and is written anew every REFRESH_S. Every write is conditional (If-None-Match,
If-Match or their equal), so of two drivers at the same moment the store lets one write and refuses the other.
"""

from __future__ import annotations

import json
import os
import socket
import uuid
from typing import Any

from faar_ray.errors import ConfigError, StorageError
from faar_ray.storage.object_store import ObjectStore, VersionedObject

NAME = ".lease"
REFRESH_S = 20.0
LEASE_S = 90.0
"""A lease this old, by the store's clock, is a dead driver's."""


class Lease:
    """This driver's claim to a run.

    Args:
        store: of the run.
    """

    def __init__(self, store: ObjectStore) -> None:
        self.store, self.token = store, uuid.uuid4().hex
        self._version: dict[str, str] | None = None

    def take(self) -> None:
        """Take the run.

        Raises:
            ConfigError: another driver holds it, or the store ignores conditional writes.
        """
        current = self.store.read_version(NAME)
        if current is not None and self._is_alive(current):
            raise ConfigError(self._in_use(current))
        if not self._write(current.version if current else None):
            raise ConfigError(self._in_use(self.store.read_version(NAME)))

        if self.store.write_if(NAME, self._facts(), None) is not None:
            self.store.delete(NAME)
            raise ConfigError(
                f"storage.path: {self.store.uri}: this store ignores conditional writes (If-None-Match), "
                "so a second driver could not be kept out"
            )

    def refresh(self) -> None:
        """Write the lease anew.

        Raises:
            StorageError: another driver took the run, or the lease was deleted.
        """
        if self._version is None or not self._write(self._version):
            current = self.store.read_version(NAME)
            reason = f"was taken over by another driver ({_who(current)})" if current else "has lost its lease"
            raise StorageError(f"storage.path: {self.store.uri} {reason}")

    def release(self) -> None:
        """Delete the lease, if it is still this driver's."""
        if _holder(self.store.read_version(NAME)).get("driver") == self.token:
            self.store.delete(NAME)

    def _write(self, expected: dict[str, str] | None) -> bool:
        """Whether the lease could be written in place of the expected version."""
        version = self.store.write_if(NAME, self._facts(), expected)
        if version is None:
            current = self.store.read_version(NAME)
            if current is not None and _holder(current).get("driver") == self.token:
                version = current.version  # written by an earlier attempt whose answer was lost
        self._version = version
        return version is not None

    def _facts(self) -> bytes:
        """What the lease says; no two are the same, since an S3 version is a hash of the bytes."""
        facts = {"driver": self.token, "host": socket.gethostname(), "pid": os.getpid(), "write": uuid.uuid4().hex}
        return json.dumps(facts).encode()

    def _is_alive(self, lease: VersionedObject) -> bool:
        return not _died_on_this_machine(_holder(lease)) and self._age_s(lease) < LEASE_S

    def _age_s(self, lease: VersionedObject) -> float:
        return (self.store.now_ns() - lease.mtime_ns) / 1e9

    def _in_use(self, lease: VersionedObject | None) -> str:
        seen = f"{_who(lease)}, seen {self._age_s(lease):.0f} s ago" if lease else "it has just begun or ended"
        return (
            f"name: a search is running in {self.store.uri} at this moment ({seen}); "
            f"the run of a killed one is free after {LEASE_S:.0f} s"
        )


def _holder(lease: VersionedObject | None) -> dict[str, Any]:
    try:
        return dict(json.loads(lease.data)) if lease else {}
    except (ValueError, TypeError):
        return {}


def _died_on_this_machine(holder: dict[str, Any]) -> bool:
    """Whether the holder was a process of this machine that has ended; its lock has let this driver in."""
    if holder.get("host") != socket.gethostname() or not isinstance(holder.get("pid"), int):
        return False
    try:
        os.kill(holder["pid"], 0)
    except ProcessLookupError:
        return True
    except OSError:
        return False
    return False


def _who(lease: VersionedObject | None) -> str:
    holder = _holder(lease)
    return f"process {holder.get('pid', '?')} on {holder.get('host', '?')}"
