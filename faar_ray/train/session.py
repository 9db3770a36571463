"""One trial outside a search: its folder, its MLflow run, and the loop between them."""

from __future__ import annotations

import json
from collections.abc import Callable, Generator, Iterator
from dataclasses import replace
from functools import partial

import torch

from faar_ray.cluster.capacity import capacity, this_machine
from faar_ray.config.trial_file import TrialFile
from faar_ray.errors import ConfigError, StorageError
from faar_ray.records import EpochRecord
from faar_ray.storage.atomic import atomic_write_or_storage_error, check_writable
from faar_ray.storage.interruption import clear_note, described, write_note
from faar_ray.storage.object_store import ATTEMPTS_AT_START, ObjectStore
from faar_ray.storage.run_location import location_of
from faar_ray.tracking.files.finish import finish_trial_files
from faar_ray.tracking.mlflow.store import config_error_on_failure
from faar_ray.tracking.mlflow.sync_thread import INTERRUPT_TIMEOUT_S, SyncThread, shutdown_timeout, updates
from faar_ray.tracking.mlflow.trial_run import Ending, TrialRun
from faar_ray.tracking.mlflow.writer import Tracker
from faar_ray.train.fit import fit
from faar_ray.train.preflight import preflight
from faar_ray.train.trial_spec import TrialSpec


class Session:
    """`<storage.path>/<name>/trials/<trial_id>/`, as a search writes it, and one MLflow run.

    Args:
        file: the trial.
        name: of the run and its folder.
        resume: continue the folder, which must exist.
        notify: called when MLflow becomes unavailable and when it is available again.
        resume_command: for the note in the trial's folder, if it is interrupted.

    Raises:
        ConfigError: the folder exists and `resume` is off, or the reverse.
    """

    def __init__(
        self,
        file: TrialFile,
        name: str,
        *,
        resume: bool,
        notify: Callable[[str], None] = print,
        resume_command: str = "",
    ) -> None:
        self.file, self.config, self.notify, self._resume_command = file, file.config, notify, resume_command
        self.trial_id = f"t000-s{file.seed}"
        self.place = location_of(file.storage.path, name)
        self.paths = self.place.trial(self.trial_id)
        self.folder, displayed = self.paths.folder, self.place.display_path("trials", self.trial_id)
        exists = self._exists()
        if exists and not resume:
            raise ConfigError(f"name: {displayed} exists; go on with it by --resume, or give another name=NAME")
        if resume and not exists:
            raise ConfigError(f"--resume: there is no {displayed}; start without --resume")

        preflight(self.config, file.resources.workers)
        capacity(file.resources, [this_machine()])
        check_writable(self.folder)
        self.paths.remote_copy.pull()
        clear_note(self.folder)
        self._timeout = shutdown_timeout()
        self._tracker = Tracker(file.tracking.uri, file.tracking.experiment or name)
        self.tracking_uri = self._tracker.uri
        title = f"{self.place.path.name}/{self.trial_id}"
        self._run = TrialRun(self.paths, self.config, {}, run_id=self._known_run(), title=title)
        self._open_run()
        self._thread = SyncThread(partial(self._run.sync, self._tracker), self._run.pending, notify)

    @property
    def run_id(self) -> str:
        """Of the MLflow run."""
        return self._run.run_id

    def _exists(self) -> bool:
        if not self.place.uri:
            return self.folder.exists()
        store = ObjectStore(self.place.uri, ATTEMPTS_AT_START)
        store.check()
        return bool(store.files(f"trials/{self.trial_id}"))

    def _known_run(self) -> str:
        path = self.folder / "run.json"
        if not path.exists():
            return ""
        try:
            known: dict[str, str] = json.loads(path.read_text())
            return known["run_id"] if known["tracking_uri"] == self.tracking_uri else ""
        except (OSError, ValueError, KeyError, TypeError):  # cut or damaged: a new run of the same trial
            return ""

    def _open_run(self) -> None:
        """Open the MLflow run; one whose start failed half way is recorded too, so that `--resume` continues it."""
        try:
            with config_error_on_failure(self.tracking_uri):
                self._run.open(self._tracker)
        finally:
            if run_id := self._tracker.runs.get(self.trial_id):
                with atomic_write_or_storage_error(self.folder / "run.json") as scratch:
                    scratch.write_text(json.dumps({"run_id": run_id, "tracking_uri": self.tracking_uri}) + "\n")
                self.paths.remote_copy.push()

    def epochs(self) -> Iterator[EpochRecord]:
        """Train; MLflow follows in a thread and is complete at the end, or a notice says that it is not."""
        ending = Ending("FAIL", 0, {})
        timeout, trained = self._timeout, self._trained()
        try:
            for record in trained:
                ending = Ending("FAIL", record.epoch + 1, record.metrics)
                self._run.add_epoch(record.epoch, record.metrics)
                self._thread.changed()
                yield record
            ending = replace(ending, state="COMPLETE")
        except (KeyboardInterrupt, GeneratorExit) as fault:
            self._note_interruption(fault)
            ending, timeout = replace(ending, state="PRUNED", reason="interrupted"), min(timeout, INTERRUPT_TIMEOUT_S)
            raise
        except StorageError as error:
            self._note_interruption(error)
            ending = replace(ending, state="PRUNED", reason=str(error))
            raise
        except Exception as error:
            ending = replace(ending, reason=f"{type(error).__name__}: {error}")
            raise
        finally:
            try:
                trained.close()  # the trial's last files
            finally:
                self._close_run(ending, timeout)

    def _note_interruption(self, fault: BaseException) -> None:
        if self._resume_command and (note := write_note(self.folder, described(fault), self._resume_command)):
            self.notify(f"closing the run; how to go on is in {note}")

    def _close_run(self, ending: Ending, timeout: float) -> None:
        finish_trial_files(self.paths, self._run.title)
        self._run.ending = ending
        self._thread.changed()
        if missing := self._thread.close(timeout):
            self.notify(f"MLflow is still unavailable and lacks the last {updates(missing)}; --resume completes it")

    def _trained(self) -> Generator[EpochRecord, None, None]:
        """In this process, or on several workers under Ray Train."""
        resources = self.file.resources
        spec = TrialSpec(
            self.trial_id,
            self.config,
            self.place,
            title=self._run.title,
            references=self.file.references,
            workers=resources.workers,
            threads=resources.cpus_per_worker,
            gpus_per_worker=resources.gpus_per_worker,
            keep_checkpoints=self.file.storage.keep_checkpoints,
        )
        if resources.workers == 1:
            torch.set_num_threads(resources.cpus_per_worker)
            yield from fit(spec)
            return
        from faar_ray.cluster.ray_cluster import connected  # seconds to import
        from faar_ray.train.runtimes.ray_train import TrainRun

        with connected(None):
            yield from TrainRun(spec).epochs()
