"""One trial outside a search: its folder, its MLflow run, and the loop between them."""

from __future__ import annotations

import json
import time
from collections.abc import Callable, Iterator
from functools import partial

import torch

from faar_ray.cluster.capacity import capacity, this_machine
from faar_ray.config.trial_file import TrialFile
from faar_ray.errors import ConfigError, StorageError
from faar_ray.records import EpochRecord, State
from faar_ray.storage.atomic import atomic_write_or_storage_error, check_writable
from faar_ray.storage.object_store import ATTEMPTS_AT_START, ObjectStore
from faar_ray.storage.run_location import location_of
from faar_ray.tracking.mlflow.mlflow_faults import is_away, needed, reason_of
from faar_ray.tracking.mlflow.trial_run import Ending, endings
from faar_ray.tracking.mlflow.write_queue import Outbox
from faar_ray.tracking.mlflow.writer import Tracker
from faar_ray.train.fit import fit_spec
from faar_ray.train.preflight import preflight
from faar_ray.train.spec import spec_of

PATIENCE, HASTE = 120.0, 10.0  # seconds to wait for MLflow at the end, and after Ctrl-C


class Session:
    """`<storage.path>/<name>/trials/<trial_id>/`, as a search writes it, and one MLflow run.

    Args:
        file: the trial.
        name: of the run and its folder.
        resume: go on with the folder, which must exist.
        tell: is told when MLflow goes away and when it is back.

    Raises:
        ConfigError: the folder exists and `resume` is off, or the reverse.
    """

    def __init__(self, file: TrialFile, name: str, *, resume: bool, tell: Callable[[str], None] = print) -> None:
        self.file, self.config = file, file.config
        self.trial_id = f"t000-s{file.seed}"
        self.place = location_of(file.storage.path, name)
        self.here = self.place.trial(self.trial_id)
        self.folder, called = self.here.folder, self.place.display_path("trials", self.trial_id)
        exists = self._exists()
        if exists and not resume:
            raise ConfigError(f"name: {called} exists; go on with it by --resume, or give another name=NAME")
        if resume and not exists:
            raise ConfigError(f"--resume: there is no {called}; start without --resume")
        preflight(self.config, file.resources.workers)
        capacity(file.resources, [this_machine()])
        check_writable(self.folder)
        self.here.remote_copy.pull()
        self._tracker = Tracker(file.tracking.uri, file.tracking.experiment or name)
        self.tracking_uri = self._tracker.uri
        with needed(self.tracking_uri):
            self.run_id = self._tracker.start_trial(self.trial_id, self.config, {}, "trial", self._known_run())
        self._outbox = Outbox("MLflow", is_away, reason_of, tell)
        with atomic_write_or_storage_error(self.folder / "run.json") as scratch:
            scratch.write_text(json.dumps({"run_id": self.run_id, "tracking_uri": self.tracking_uri}) + "\n")
        self.here.remote_copy.push()

    def _exists(self) -> bool:
        if not self.place.uri:
            return self.folder.exists()
        store = ObjectStore(self.place.uri, ATTEMPTS_AT_START)
        store.check()
        return bool(store.files(f"trials/{self.trial_id}"))

    def _known_run(self) -> str | None:
        path = self.folder / "run.json"
        if not path.exists():
            return None
        try:
            known: dict[str, str] = json.loads(path.read_text())
            return known["run_id"] if known["tracking_uri"] == self.tracking_uri else None
        except (OSError, ValueError, KeyError, TypeError):  # cut or damaged: a new view of the same trial
            return None

    def epochs(self) -> Iterator[EpochRecord]:
        """Train; MLflow follows in a thread and is complete at the end, unless it stays away, which is told."""
        state: State = "FAIL"
        reason, record, patience = "", None, PATIENCE
        try:
            for record in self._trained():
                log = partial(self._tracker.log_epoch, self.run_id, record.epoch, record.metrics, time.time())
                self._outbox.put(log)
                yield record
            state = "COMPLETE"
        except (KeyboardInterrupt, GeneratorExit):
            state, reason, patience = "PRUNED", "interrupted", HASTE
            raise
        except StorageError as error:
            state, reason = "PRUNED", str(error)
            raise
        except Exception as error:
            reason = f"{type(error).__name__}: {error}"
            raise
        finally:
            ending = Ending(state, record.epoch + 1 if record else 0, record.metrics if record else {}, reason)
            for write in endings(
                self._tracker, self.run_id, self.here, f"{self.place.path.name}/{self.trial_id}", ending
            ):
                self._outbox.put(write)
            if left := self._outbox.close(patience):
                tell = self._outbox.tell
                tell(f"MLflow did not come back and lacks the last writes ({left}); --resume makes them")

    def _trained(self) -> Iterator[EpochRecord]:
        """In this process, or on several workers under Ray Train."""
        need = self.file.resources
        spec = spec_of(
            self.trial_id,
            self.config,
            self.place,
            need,
            keep_checkpoints=self.file.storage.keep_checkpoints,
            references=self.file.references,
        )
        if need.workers == 1:
            torch.set_num_threads(need.cpus_per_worker)
            yield from fit_spec(spec)
            return
        from faar_ray.cluster.ray_cluster import connected  # seconds to import
        from faar_ray.train.runtimes.ray_train import TrainRun

        with connected(None):
            yield from TrainRun(spec).epochs()
