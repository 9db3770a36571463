"""A run in object storage: the driver uploads its own files after every event, in a thread.

The trials upload theirs (see `train.fit`) before an epoch is reported, so the store never knows an epoch without its
checkpoint. A journal that is an event behind is the journal of a driver that was killed a moment ago.
"""

from __future__ import annotations

import contextlib
import threading
import time
from collections.abc import Iterator, Mapping

from faar_ray.errors import ConfigError, FaarRayError, StorageError
from faar_ray.records import TrialResult
from faar_ray.storage.interruption import NOTE
from faar_ray.storage.lease import REFRESH_S, Lease
from faar_ray.storage.object_store import ATTEMPTS_AT_START, ObjectStore
from faar_ray.storage.remote_copy import RemoteCopy
from faar_ray.storage.run_location import RunLocation, download_run
from faar_ray.tune.run.jobs import SHARDS, Job

DRIVER_FILES = ("space.yaml", "run.json", "study.log", "results.parquet", "report", NOTE)


class RemoteRun:
    """A watcher of the search that keeps the remote copy of the driver's files.

    Args:
        location: of the run.
        copy: of the run.
        lease: taken.
    """

    def __init__(self, location: RunLocation, copy: RemoteCopy, lease: Lease) -> None:
        self.location, self.copy, self.lease = location, copy, lease
        self.fault: StorageError | None = None
        self._changed, self._over = threading.Event(), threading.Event()
        self._thread = threading.Thread(target=self._work, name="storage", daemon=True)
        self._thread.start()

    def started(self, job: Job) -> None:
        """Upload: a job was started."""
        self._note()

    def epoch(self, job: Job, epoch: int, metrics: Mapping[str, float]) -> None:
        """Upload: the journal has another epoch."""
        self._note()

    def ended(self, job: Job, result: TrialResult) -> None:
        """Download what MLflow gets of the trial, which another machine may have written, and upload the journal."""
        if job.role == "prefix":
            self._note()
            return
        trial = self.location.trial(job.trial_id)
        files = (trial.trace, trial.epochs, trial.adapter, trial.sines, trial.rank_picture, trial.sine_picture)
        self.copy.pull(*files)
        self._note()

    def gather(self) -> None:
        """Download all traces, for the report."""
        self.copy.pull("rank_trace")

    def push(self) -> None:
        """Upload the driver's files now."""
        self.copy.push(*DRIVER_FILES)

    def close(self) -> None:
        """Upload the rest and release the run, unless the storage failed before."""
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
            except StorageError as error:
                self.fault = error
                return
            except Exception as error:  # of any kind: the search must not go on without its storage
                self.fault = StorageError(f"storage.path: {self.copy.uri} ({type(error).__name__}: {error})")
                return


def check_remote(location: RunLocation, *, resume: bool) -> RunLocation:
    """Refuse a storage that cannot be used, or a name in use, before anything starts; gives where to look.

    Raises:
        ConfigError: saying which.
    """
    if location.path.name == SHARDS:
        raise ConfigError(f"name: {location} is where searches put their data; choose another")
    store = ObjectStore(location.uri, ATTEMPTS_AT_START)
    store.check()

    if resume:
        if not store.files("space.yaml"):
            raise ConfigError(f"--resume: there is no run in {location}; without --resume it is started")
        return download_run(location.uri, "space.yaml", "run.json")
    _check_free(location, store)
    return location


def _check_free(location: RunLocation, store: ObjectStore) -> None:
    """Refuse a run of which there is more than a search leaves that ended before any trial began.

    Raises:
        ConfigError: naming it.
    """
    if any(name.split("/")[0] not in DRIVER_FILES for name in store.files()):
        raise ConfigError(f"name: {location} exists already: --resume goes on with it, --name NEW starts another")


@contextlib.contextmanager
def open_remote_run(location: RunLocation, *, fresh: bool) -> Iterator[RemoteRun | None]:
    """Take a run in object storage and keep its remote copy; None for a run in a folder.

    The working copy of a resumed run becomes what the store has.

    Raises:
        ConfigError: another driver holds the run.
    """
    if not location.uri:
        yield None
        return
    copy = location.remote_copy()
    lease = Lease(copy.store)
    lease.take()

    run: RemoteRun | None = None
    try:
        if fresh:
            _check_free(location, copy.store)  # another driver may have had it since it was looked at
            copy.pull("run.json")
        else:
            copy.pull("rank_trace", *(part for part in DRIVER_FILES if part != "space.yaml"))
        run = RemoteRun(location, copy, lease)
        run.push()
        yield run
    except FaarRayError:
        if fresh and (run is None or run.fault is None) and _removed(copy, run):
            run = None
        raise
    finally:
        if run is not None:
            run.close()
        else:
            with contextlib.suppress(StorageError):
                lease.release()


def _removed(copy: RemoteCopy, run: RemoteRun | None) -> bool:
    """Remove a run that has not started any trial; whether it was one."""
    with contextlib.suppress(StorageError):
        if not copy.store.files("trials"):
            if run is not None:
                run.close()
            copy.store.clear()
            return True
    return False
