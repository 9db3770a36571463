"""Where a run is: a folder, or a place in object storage with a working copy in the cache of this machine.

`<cache>/remote/<hash>/<name>` belongs to whoever trains, `<cache>/remote/<hash>-read/<name>` to whoever only looks, so
that a report of a running search takes nothing away from it. Both may be deleted at any time when nothing runs.
"""

from __future__ import annotations

import hashlib
from dataclasses import dataclass, replace
from pathlib import Path

from faar_ray.config.paths import default_cache_dir, is_remote, storage_fault
from faar_ray.errors import ConfigError, FaarRayError
from faar_ray.storage.object_store import ATTEMPTS_AT_START, Remote, endpoint
from faar_ray.storage.remote_copy import NO_REMOTE, Mirror, RemoteCopy

SINE_TRACE = "sinewich_trace.parquet"


@dataclass(frozen=True)
class RunLocation:
    """Where a run is."""

    path: Path
    """The folder, or the working copy."""
    uri: str = ""
    """Of the twin; "" for none."""

    def __str__(self) -> str:
        return self.uri or str(self.path)

    def display_path(self, *parts: str) -> str:
        """A file of the run, as a person is told of it."""
        return "/".join((str(self), *parts))

    def mirror(self) -> Mirror:
        """The working copy and its twin."""
        return Mirror(self.uri, self.path)

    def trial(self, trial_id: str) -> TrialPaths:
        """Where a trial of the run is."""
        here = TrialPaths(self.path, trial_id)
        if not self.uri:
            return here
        parts = (path.relative_to(self.path).as_posix() for path in (here.folder, here.trace))
        return replace(here, remote_copy=RemoteCopy(self.mirror(), tuple(parts)))


@dataclass(frozen=True)
class TrialPaths:
    """Where a trial's files are on this machine (DESIGN.md, On disk), and their twin."""

    run: Path
    trial_id: str
    remote_copy: RemoteCopy = NO_REMOTE

    @property
    def folder(self) -> Path:
        """The trial's own."""
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
        """What was trained."""
        return self.folder / "adapter.safetensors"

    @property
    def trace(self) -> Path:
        """The rank trace."""
        return self.run / "rank_trace" / f"{self.trial_id}.parquet"

    @property
    def sines(self) -> Path:
        """The sine trace; only Free Sinewich leaves one."""
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
    """The place of a run below `storage.path`."""
    if not is_remote(storage_path):
        return RunLocation((Path(storage_path).expanduser() / name).absolute())
    return location_of_uri(f"{storage_path.rstrip('/')}/{name}")


def location_of_uri(uri: str, *, reading: bool = False) -> RunLocation:
    """The place of a run by its URI; on every machine the path is its own."""
    above, _, name = uri.rstrip("/").rpartition("/")
    key = hashlib.sha256(f"{endpoint()} {above}".encode()).hexdigest()[:16]
    return RunLocation(default_cache_dir() / "remote" / f"{key}{'-read' * reading}" / name, uri.rstrip("/"))


def download_run(uri: str, *parts: str) -> RunLocation:
    """Parts of a run that a command line names by its URI, read to this machine.

    Raises:
        ConfigError: no URI of that kind, no such run, or a storage that cannot be used.
    """
    if fault := storage_fault(uri):
        raise ConfigError(fault)
    place = location_of_uri(uri, reading=True)
    try:
        remote = Remote(place.uri, ATTEMPTS_AT_START)
        if not any(remote.files(part) for part in parts):
            raise ConfigError(f"{place.uri}: has no {' or '.join(parts)}")
        place.mirror().pull(*parts)
    except ConfigError:
        raise
    except FaarRayError as fault_of_storage:
        raise ConfigError(str(fault_of_storage).removeprefix("storage.path: ")) from None
    return place
