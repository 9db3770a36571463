"""One driver at a time: an object in the storage that says who holds a run, as a lock does on one machine.

`<run>/.lease` names driver, host and process and is written anew every REFRESH_S; its age is taken by the storage's
clock. S3 through pyarrow has no compare-and-set, so two drivers that start within the same second both believe that
they hold the run: the one that wrote first finds the other's lease at its next refresh, and stops.
"""

from __future__ import annotations

import json
import os
import socket
import uuid
from typing import Any

from faar_ray.errors import ConfigError, StorageError
from faar_ray.storage.object_store import Remote

NAME = ".lease"
REFRESH_S = 20.0
LEASE_S = 90.0
"""A lease this old is a dead driver's."""


class Lease:
    """This driver's claim to a run.

    Args:
        remote: of the run.
    """

    def __init__(self, remote: Remote) -> None:
        self.remote, self.token = remote, uuid.uuid4().hex

    def take(self) -> None:
        """Take the run.

        Raises:
            ConfigError: another driver holds it.
        """
        if (holder := self._holder()) is not None and not _died_here(holder):
            age = (self.remote.now_ns() - self.remote.info(NAME).mtime_ns) / 1e9
            if age < LEASE_S:
                raise ConfigError(
                    f"name: a search is running in {self.remote.uri} at this moment ({_who(holder)}, seen {age:.0f} s "
                    f"ago); one that was killed lets go after {LEASE_S:.0f} s"
                )
        self._write()

    def refresh(self) -> None:
        """Say that the driver is alive.

        Raises:
            StorageError: another driver took the run meanwhile.
        """
        holder = self._holder()
        if holder is not None and holder.get("driver") != self.token:
            raise StorageError(f"storage.path: {self.remote.uri} was taken over by another driver ({_who(holder)})")
        self._write()

    def release(self) -> None:
        """Let go."""
        if (self._holder() or {}).get("driver") == self.token:
            self.remote.delete(NAME)

    def _write(self) -> None:
        facts = {"driver": self.token, "host": socket.gethostname(), "pid": os.getpid()}
        self.remote.write(NAME, json.dumps(facts).encode())

    def _holder(self) -> dict[str, Any] | None:
        raw = self.remote.read(NAME)
        if raw is None:
            return None
        try:
            return dict(json.loads(raw))
        except (ValueError, TypeError):
            return {}


def _died_here(holder: dict[str, Any]) -> bool:
    """Whether the holder was a process of this machine that is no more; its own lock has let this driver in."""
    if holder.get("host") != socket.gethostname() or not isinstance(holder.get("pid"), int):
        return False
    try:
        os.kill(holder["pid"], 0)
    except ProcessLookupError:
        return True
    except OSError:
        return False
    return False


def _who(holder: dict[str, Any]) -> str:
    return f"process {holder.get('pid', '?')} on {holder.get('host', '?')}"
