"""What one trial leaves on disk and in object storage: config, records, checkpoints, adapter, traces, pictures."""

from __future__ import annotations

import logging
from types import TracebackType
from typing import Any

from faar_ray.errors import FaarRayError, StorageError
from faar_ray.export.adapter_file import write_adapter
from faar_ray.records import EpochRecord
from faar_ray.tracking.files.epoch_file import add_epoch
from faar_ray.tracking.files.finish import complete_trial_files
from faar_ray.tracking.files.trial_files import (
    clear_trial_leftovers,
    reopen_trial_files,
    write_config,
    write_trial_files,
)
from faar_ray.tracking.files.trial_pictures import draw_pictures
from faar_ray.train.checkpoint import (
    DUE,
    check_config,
    check_weights,
    digest_of,
    last_good_checkpoint,
    save_checkpoint,
)
from faar_ray.train.runtimes.runtime import Runtime, on_rank_zero
from faar_ray.train.trial import Trial
from faar_ray.train.trial_spec import TrialSpec

log = logging.getLogger(__name__)


class TrialSink:
    """Writes a trial's files on rank 0; an error there is raised on every rank.

    A context manager: when the trial ends, for whatever reason, its files are completed and its pictures drawn.
    """

    def __init__(self, spec: TrialSpec, runtime: Runtime) -> None:
        self._spec, self._paths, self._runtime = spec, spec.paths, runtime
        self._epochs = spec.config.optim.epochs
        self._digest = ""
        self._resumed = False

    def __enter__(self) -> TrialSink:
        return self

    def resume(self, trial: Trial) -> tuple[list[EpochRecord], dict[str, float]]:
        """Bring the trial to its last good checkpoint, if there is one.

        Returns:
            The records of the epochs before, and where the next epoch is trained already and only its end is due, the
            metrics of its training; else {}.

        Raises:
            ConfigError: the checkpoint is of another config.
            DataError: there are checkpoints, but none can be read, or the backbone has other weights now.
            StorageError: the trial's files cannot be read or written.
        """
        state, records = on_rank_zero(self._runtime, self._prepare, trial.model.weights_digest)
        if state is not None:
            trial.restore(state)
        self._resumed = True
        return records, {} if state is None else dict(state.get(DUE, {}))

    def add(self, trial: Trial, record: EpochRecord) -> None:
        """Write an epoch: its record, the adapter if it is the last one, the checkpoint; all of it remotely too.

        Raises:
            StorageError: something cannot be written.
        """
        on_rank_zero(self._runtime, self._write, trial, record, trial.state())

    def leave_end(self, trial: Trial, epoch: int, trained: dict[str, float]) -> None:
        """Write the checkpoint of an epoch that is trained, and whose end is due.

        Raises:
            StorageError: it cannot be written.
        """
        on_rank_zero(self._runtime, self._save, epoch, trial.state() | {DUE: trained}, epoch)

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, tb: TracebackType | None) -> None:
        if not self._resumed:  # nothing was read, so nothing may be overwritten
            return

        if error is None:
            on_rank_zero(self._runtime, self._finish)
        elif self._runtime.rank == 0:  # the other workers may have died, so nothing is exchanged with them
            try:
                self._finish(push=not isinstance(error, StorageError))
            except FaarRayError as fault:
                log.warning("%s: its files are not complete (%s)", self._paths.folder, fault)

    def _prepare(self, weights_digest: str) -> tuple[dict[str, Any] | None, list[EpochRecord]]:
        self._paths.remote_copy.pull()
        state, records = last_good_checkpoint(self._paths)
        if state is not None:
            check_config(self._paths, state, self._spec.config)
            check_weights(self._paths, state, weights_digest)

        clear_trial_leftovers(self._paths)
        write_config(self._paths, self._spec.config)
        if len(records) < self._epochs:
            reopen_trial_files(self._paths, records)
        else:
            write_trial_files(self._paths, records)
        self._digest = digest_of(records)
        return state, records

    def _write(self, trial: Trial, record: EpochRecord, state: dict[str, Any]) -> None:
        self._digest = digest_of([record], self._digest)
        add_epoch(self._paths, record)
        if record.epoch + 1 == self._epochs:  # before the checkpoint that makes the trial count as finished
            write_adapter(self._paths.adapter, trial.model, trial.config)
        self._save(record.epoch, state, record.epoch + 1)

    def _save(self, epoch: int, state: dict[str, Any], finished: int) -> None:
        state |= {"epochs": finished, "records_digest": self._digest}
        keep, named = self._spec.keep_checkpoints, self._spec.keep_epochs
        save_checkpoint(self._paths.folder, epoch, state, keep=keep, keep_epochs=named)
        self._paths.remote_copy.push()

    def _finish(self, push: bool = True) -> None:
        if self._spec.stop_after is not None:  # nobody reads the files of a prefix but its forks
            return
        written = complete_trial_files(self._paths)
        if (draw_pictures(self._paths, self._spec.title) or written) and push:
            self._paths.remote_copy.push()
