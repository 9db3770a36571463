"""One trial outside a search: its folder, its MLflow run, and the loop between them."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable, Generator, Iterator
from contextlib import contextmanager, suppress
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any
from uuid import uuid4

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
from faar_ray.tracking.mlflow.runs import FOLDER_TAG, KnownRun
from faar_ray.tracking.mlflow.store import config_error_on_failure, database_file
from faar_ray.tracking.mlflow.sync_thread import INTERRUPT_TIMEOUT_S, SyncThread, shutdown_timeout, updates
from faar_ray.tracking.mlflow.trial_run import Ending, TrialRun
from faar_ray.tracking.mlflow.writer import Tracker
from faar_ray.tracking.place import tracking_place
from faar_ray.train.fit import fit
from faar_ray.train.preflight import preflight
from faar_ray.train.trial_spec import TrialSpec
from faar_ray.train.weights import Digests, check_same_weights, weights_of

RUN_FILE = "run.json"


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
        has_begun, self._fresh = self._has_begun(), not resume
        if has_begun and not resume:
            raise ConfigError(f"name: {displayed} exists; go on with it by --resume, or give another name=NAME")
        if resume and not has_begun:
            raise ConfigError(f"--resume: there is no {displayed}; start without --resume")

        preflight(self.config, file.resources.workers)
        capacity(file.resources, [this_machine()])
        check_writable(self.folder)
        self.paths.remote_copy.pull()
        clear_note(self.folder)
        self._checkpoint, self._weights = self._known_weights()
        self._timeout = shutdown_timeout()
        with self._removed_if_not_begun():
            self._open_mlflow(name)
        self._thread = SyncThread(partial(self._run.sync, self._tracker), self._run.pending, notify)

    @property
    def run_id(self) -> str:
        """Of the MLflow run."""
        return self._run.run_id

    def _has_begun(self) -> bool:
        """Whether the trial has written any file."""
        if not self.place.uri:
            return has_files(self.folder)
        store = ObjectStore(self.place.uri, ATTEMPTS_AT_START)
        store.check()
        part = f"trials/{self.trial_id}"
        return bool(store.files(part).keys() - {f"{part}/{RUN_FILE}"})

    def _known_weights(self) -> tuple[str, Digests]:
        """Where the backbone's weights lie now, if the trial was started with them elsewhere, and their digest.

        Raises:
            ConfigError: they are not those that the trial was started with.
        """
        before: Digests = {} if self._fresh else read_facts(self.folder / RUN_FILE).get("weights", {})
        first, now = next(iter(before), None), self.config.backbone.checkpoint
        moved: dict[str, str] = {}
        if first is not None and now is not None and first not in (now, self.config.backbone.name):
            self.config, moved = self.config.with_checkpoint(first), {first: now}
        weights = weights_of([self.config], moved)
        check_same_weights(before, weights, moved)
        return moved.get(first or "", ""), weights

    @contextmanager
    def _removed_if_not_begun(self) -> Iterator[None]:
        """Remove a new folder where an error comes before the trial has written a file: the name is free again."""
        try:
            yield
        except StorageError:
            raise
        except Exception:
            if self._fresh and not has_files(self.folder):
                shutil.rmtree(self.folder, ignore_errors=True)
                for empty in (self.folder.parent, self.place.path / "rank_trace", self.place.path):
                    with suppress(OSError):
                        empty.rmdir()
                self.paths.remote_copy.push()
            raise

    def _open_mlflow(self, name: str) -> None:
        """Open the trial's MLflow run, the one that the folder knows or a new one; its id is known before it is made,
        so that `--resume` continues one whose start failed half way."""
        facts = read_facts(self.folder / RUN_FILE)
        known = KnownRun() if self._fresh else KnownRun.of(facts, "run_id")
        tracking, first_line = tracking_place(self.file.tracking, None if self._fresh else _recorded(known))
        if first_line:
            self.notify(first_line)
        self._tracker = Tracker(tracking.uri, tracking.experiment or name, known)
        self.tracking_uri, self.experiment_id = self._tracker.uri, self._tracker.experiment_id
        for notice in self._tracker.notices:
            self.notify(notice)
        folder_id, title = known.folder_id or uuid4().hex, f"{self.place.path.name}/{self.trial_id}"
        tags, run_id = {FOLDER_TAG: folder_id}, self._tracker.known_run
        self._run = TrialRun(self.paths, self.config, {}, run_id=run_id, tags=tags, title=title)

        self._write_facts(run_id, folder_id)
        with config_error_on_failure(self.tracking_uri):
            if self._fresh and (abandoned := facts.get("run_id")):
                self._tracker.close_abandoned(str(abandoned))
            try:
                self._run.open(self._tracker)
            finally:
                self._write_facts(self._tracker.runs.get(self.trial_id, run_id), folder_id)

    def _write_facts(self, run_id: str, folder_id: str) -> None:
        facts = {"run_id": run_id, "tracking_uri": self.tracking_uri, "folder_id": folder_id, "weights": self._weights}
        with atomic_write_or_storage_error(self.folder / RUN_FILE) as scratch:
            scratch.write_text(json.dumps(facts) + "\n")
        self.paths.remote_copy.push()

    def epochs(self) -> Iterator[EpochRecord]:
        """Train; MLflow follows in a thread and is complete at the end, or a notice says that it is not."""
        timeout, trained = self._timeout, self._trained()
        with self._removed_if_not_begun():
            yield from self._watched(trained, timeout)

    def _watched(self, trained: Generator[EpochRecord, None, None], timeout: float) -> Iterator[EpochRecord]:
        ending = Ending("FAIL", 0, {})
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
            checkpoint=self._checkpoint,
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

        module = self.config.data.module
        with connected(None, modules=[module] if module else []):
            yield from TrainRun(spec).epochs()


def has_files(folder: Path) -> bool:
    """Whether a trial's folder holds anything but the ids of its MLflow run; hidden files are temporary ones."""
    parts = (path.relative_to(folder).parts for path in folder.rglob("*") if path.is_file() and path.name != RUN_FILE)
    return any(not any(part.startswith(".") for part in names) for names in parts)


def read_facts(path: Path) -> dict[str, Any]:
    """`run.json` of a trial; empty where it is missing, cut or damaged."""
    try:
        return dict(json.loads(path.read_text()))
    except (OSError, ValueError, TypeError):
        return {}


def _recorded(known: KnownRun) -> dict[str, str]:
    """Where the run was, unless it is in a file that was moved."""
    file = database_file(known.tracking_uri)
    return {} if file is not None and not file.is_file() else {"uri": known.tracking_uri}
