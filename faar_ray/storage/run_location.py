"""Where a run is: a folder, or object storage with a working copy in the cache of this machine.

Training uses `<cache>/remote/<hash>/<name>`, commands that only read use `<cache>/remote/<hash>-read/<name>`, so a
report never changes the files of a running search. Both may be deleted when nothing runs.
"""

from __future__ import annotations

import hashlib
from dataclasses import dataclass, replace
from pathlib import Path

from faar_ray.config.paths import default_cache_dir, is_remote, storage_fault
from faar_ray.errors import ConfigError, FaarRayError
from faar_ray.storage.credentials import server
from faar_ray.storage.object_store import ATTEMPTS_AT_START, ObjectStore
from faar_ray.storage.remote_copy import NO_REMOTE, RemoteCopy

SINE_TRACE = "sinewich_trace.parquet"


@dataclass(frozen=True)
class RunLocation:
    """Where a run is."""

    path: Path
    """The folder, or the working copy."""
    uri: str = ""
    """Of the run in object storage; "" for a run in a folder."""

    def __str__(self) -> str:
        return self.uri or str(self.path)

    def display_path(self, *parts: str) -> str:
        """A file of the run, for messages."""
        return "/".join((str(self), *parts))

    def remote_copy(self) -> RemoteCopy:
        """The working copy and its copy in object storage."""
        return RemoteCopy(self.uri, self.path)

    def trial(self, trial_id: str) -> TrialPaths:
        """Where a trial of the run is."""
        trial = TrialPaths(self.path, trial_id)
        if not self.uri:
            return trial
        return replace(trial, remote_copy=RemoteCopy(self.uri, self.path, (trial.folder, trial.trace)))


@dataclass(frozen=True)
class TrialPaths:
    """Where a trial's files are on this machine (DESIGN.md, On disk), and their copy in object storage."""

    run: Path
    trial_id: str
    remote_copy: RemoteCopy = NO_REMOTE

    @property
    def folder(self) -> Path:
        """Folder of the trial."""
        return self.run / "trials" / self.trial_id

    @property
    def epochs(self) -> Path:
        """Metrics and records of every epoch, complete when the trial has ended."""
        return self.folder / "epochs.parquet"

    @property
    def records(self) -> Path:
        """Folder of the epochs that are not in `epochs` yet, a file each; gone when the trial has ended."""
        return self.folder / "records"

    @property
    def adapter(self) -> Path:
        """The trained adapter."""
        return self.folder / "adapter.safetensors"

    @property
    def trace(self) -> Path:
        """The rank trace."""
        return self.run / "rank_trace" / f"{self.trial_id}.parquet"

    @property
    def sines(self) -> Path:
        """The sine trace; only Free Sinewich writes one."""
        return self.folder / SINE_TRACE

    @property
    def rank_picture(self) -> Path:
        """The rank trace as a heat map; drawn when the trial ends."""
        return self.folder / "rank_trace.png"

    @property
    def sine_picture(self) -> Path:
        """The sine trace as a picture; only of Free Sinewich."""
        return self.folder / "sinewich_trace.png"


def location_of(storage_path: str, name: str) -> RunLocation:
    """Location of a run below `storage.path`."""
    if not is_remote(storage_path):
        return RunLocation((Path(storage_path).expanduser() / name).absolute())
    return location_of_uri(f"{storage_path.rstrip('/')}/{name}")


def location_of_uri(uri: str, *, reading: bool = False) -> RunLocation:
    """Location of a run in object storage; each machine has its own working copy."""
    above, _, name = uri.rstrip("/").rpartition("/")
    key = hashlib.sha256(f"{server(uri)} {above}".encode()).hexdigest()[:16]
    return RunLocation(default_cache_dir() / "remote" / f"{key}{'-read' * reading}" / name, uri.rstrip("/"))


def download_run(uri: str, *parts: str) -> RunLocation:
    """Parts of a run that a command line names by its URI, downloaded to this machine.

    Raises:
        ConfigError: no URI of that kind, no such run, or a storage that cannot be used.
    """
    if message := storage_fault(uri):
        raise ConfigError(message)
    location = location_of_uri(uri, reading=True)
    try:
        store = ObjectStore(location.uri, ATTEMPTS_AT_START)
        if not any(store.files(part) for part in parts):
            raise ConfigError(f"{location.uri}: has no {' or '.join(parts)}")
        location.remote_copy().pull(*parts)
    except ConfigError:
        raise
    except FaarRayError as error:
        raise ConfigError(str(error).removeprefix("storage.path: ")) from None
    return location
