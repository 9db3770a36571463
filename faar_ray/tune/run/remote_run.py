"""A run in object storage, as its driver keeps it: its own files go up after every event, in a thread of their own.

The trials push what is theirs (see `train.fit`) before an epoch is told, so the storage never knows of an epoch whose
checkpoint it has not; a journal that lags behind by an event is the journal of a driver that was killed a moment ago.
"""

from __future__ import annotations

import contextlib
import threading
import time
from collections.abc import Iterator, Mapping

from faar_ray.errors import ConfigError, FaarRayError, StorageError
from faar_ray.records import TrialResult
from faar_ray.storage.lease import REFRESH_S, Lease
from faar_ray.storage.object_store import ATTEMPTS_AT_START, Remote
from faar_ray.storage.remote_copy import Mirror
from faar_ray.storage.run_location import RunLocation, TrialPaths, download_run
from faar_ray.tune.run.jobs import SHARDS, Job

OWN = ("space.yaml", "run.json", "study.log", "results.parquet", "report")
"""What the driver writes."""


class RemoteRun:
    """A watcher of the search_state that keeps the twin of the driver's files.

    Args:
        mirror: of the run.
        lease: taken.
    """

    def __init__(self, mirror: Mirror, lease: Lease) -> None:
        self.mirror, self.lease = mirror, lease
        self.fault: StorageError | None = None
        self._changed, self._over = threading.Event(), threading.Event()
        self._thread = threading.Thread(target=self._work, name="storage", daemon=True)
        self._thread.start()

    def started(self, job: Job) -> None:
        """A job was handed out."""
        self._note()

    def epoch(self, job: Job, epoch: int, metrics: Mapping[str, float]) -> None:
        """The journal has another epoch."""
        self._note()

    def ended(self, job: Job, result: TrialResult) -> None:
        """The journal has another result; what MLflow is to get of the trial may be another machine's."""
        trial = TrialPaths(self.mirror.folder, job.trial_id)
        files = (trial.trace, trial.epochs, trial.adapter, trial.sines, trial.rank_picture, trial.sine_picture)
        self.mirror.pull(*(path.relative_to(trial.run).as_posix() for path in files))
        self._note()

    def gather(self) -> None:
        """All traces, for the report."""
        self.mirror.pull("rank_trace")

    def push(self) -> None:
        """What the driver wrote, now."""
        self.mirror.push(*OWN)

    def close(self) -> None:
        """Push the rest and let go of the run; a storage that gave out is not asked again."""
        self._over.set()
        self._changed.set()
        self._thread.join()
        if self.fault is None:
            with contextlib.suppress(StorageError):
                self.push()
                self.lease.release()

    def _note(self) -> None:
        if self.fault is not None:
            raise self.fault
        self._changed.set()

    def _work(self) -> None:
        refreshed = time.monotonic()
        while not self._over.is_set():
            changed = self._changed.wait(max(0.0, refreshed + REFRESH_S - time.monotonic()))
            self._changed.clear()
            if self._over.is_set():
                return
            try:
                if time.monotonic() - refreshed >= REFRESH_S:
                    self.lease.refresh()
                    refreshed = time.monotonic()
                if changed:
                    self.push()
            except StorageError as fault:
                self.fault = fault
                return
            except Exception as fault:  # whatever it is, the search must hear of it
                self.fault = StorageError(f"storage.path: {self.mirror.uri} ({type(fault).__name__}: {fault})")
                return


def check_remote(place: RunLocation, *, resume: bool) -> RunLocation:
    """Refuse a storage that cannot be used, or a name in use, before anything starts; gives the place to look at.

    Raises:
        ConfigError: saying which.
    """
    if place.path.name == SHARDS:
        raise ConfigError(f"name: {place} is where searches put their data; choose another")
    remote = Remote(place.uri, ATTEMPTS_AT_START)
    remote.check()
    if resume:
        if not remote.files("space.yaml"):
            raise ConfigError(f"--resume: there is no run in {place}; without --resume it is started")
        return download_run(place.uri, "space.yaml")
    if remote.files():
        raise ConfigError(f"name: {place} exists already: --resume goes on with it, --name NEW starts another")
    return place


@contextlib.contextmanager
def mirrored(place: RunLocation, *, fresh: bool) -> Iterator[RemoteRun | None]:
    """Keep the twin of a held run; the working copy becomes what the storage has. None where there is no twin.

    Raises:
        ConfigError: another driver holds the run.
    """
    if not place.uri:
        yield None
        return
    mirror = place.mirror()
    lease = Lease(mirror.remote)
    lease.take()
    run: RemoteRun | None = None
    try:
        if not fresh:
            mirror.pull("rank_trace", *(part for part in OWN if part != "space.yaml"))
        run = RemoteRun(mirror, lease)
        run.push()
        yield run
    except FaarRayError:
        if fresh and (run is None or run.fault is None) and _forgotten(mirror, run):
            run = None
        raise
    finally:
        if run is not None:
            run.close()


def _forgotten(mirror: Mirror, run: RemoteRun | None) -> bool:
    """Whether the run had not started any trial; then it is taken away again."""
    with contextlib.suppress(StorageError):
        if not mirror.remote.files("trials"):
            if run is not None:
                run.close()
            mirror.remote.clear()
            return True
    return False
