"""Completes the files of a trial that has ended: by its own process, or by another one if that was killed.

The trial's parts, one per epoch, become `epochs.parquet` and the traces; then its pictures are drawn.
"""

from __future__ import annotations

import logging
from dataclasses import replace
from pathlib import Path

from faar_ray.errors import DataError
from faar_ray.storage.atomic import storage_error_on_oserror
from faar_ray.storage.remote_copy import RemoteCopy
from faar_ray.storage.run_location import TrialPaths
from faar_ray.tracking.files.epoch_file import parts_of, read_trial_records
from faar_ray.tracking.files.rank_trace import read_rank_trace
from faar_ray.tracking.files.trial_files import write_trial_files
from faar_ray.tracking.files.trial_pictures import draw_pictures

log = logging.getLogger(__name__)


def finish_trial_files(trial: TrialPaths, title: str) -> None:
    """Complete the files of a trial that has ended, also remotely, and draw its pictures; idempotent.

    For a process that did not train the trial. A file that is damaged is a warning.

    Args:
        trial: where its files are.
        title: of its pictures.

    Raises:
        StorageError: the files cannot be read or written.
    """
    try:
        repair_trial_files(trial)
    except DataError as error:
        log.warning("%s", error)
    if draw_pictures(trial, title):
        _remote(trial, trial.rank_picture, trial.sine_picture).push()


def repair_trial_files(trial: TrialPaths) -> bool:
    """`complete_trial_files` of a trial that another machine may have trained; True if there was anything to write.

    Raises:
        DataError: the trace is damaged and there is nothing to write it from.
        StorageError: the files cannot be read or written.
    """
    if trace_fault(trial) is None and not parts_of(trial):
        return False
    remote = _remote(trial, trial.records, trial.epochs, trial.trace, trial.sines)
    try:
        remote.pull()
    except FileNotFoundError:  # the trial's own process merged its parts just now
        remote.pull()

    written = complete_trial_files(trial)
    if written:
        remote.push()
    return written


def complete_trial_files(trial: TrialPaths) -> bool:
    """Write what the files of an ended trial lack of its records; True if there was anything to write.

    A part that is damaged is set aside as `*.damaged`.

    Raises:
        DataError: the trace is damaged and there is nothing to write it from.
        StorageError: the files cannot be written.
    """
    fault, parts = trace_fault(trial), parts_of(trial)
    if fault is None and not parts:
        return False
    if not parts and not trial.epochs.is_file():
        if fault is not None and trial.trace.exists():
            raise fault
        return False  # the trial has written nothing yet

    records, errors = read_trial_records(trial)
    if trial.epochs in errors:
        raise errors[trial.epochs]
    for path, error in errors.items():
        log.warning("%s; the epoch is missing in the trial's files", error)
        with storage_error_on_oserror(path):
            path.rename(path.with_suffix(".damaged"))
    write_trial_files(trial, list(records.values()))
    return True


def trace_fault(trial: TrialPaths) -> DataError | None:
    """Why the rank trace of a trial cannot be read, None if it can."""
    try:
        read_rank_trace(trial.trace)
    except DataError as error:
        return error
    return None


def _remote(trial: TrialPaths, *files: Path) -> RemoteCopy:
    """The remote copy of some of a trial's files; its checkpoints need not be on this machine."""
    return replace(trial.remote_copy, parts=tuple(path.relative_to(trial.run).as_posix() for path in files))
