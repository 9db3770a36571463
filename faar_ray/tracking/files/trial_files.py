"""What a trial writes beside its checkpoints, and how its files are completed when it ends.

A running trial adds a part per epoch. `complete_trial_files` turns the parts into the files of an ended trial:
`epochs.parquet` first, the traces from it, then the parts are removed. Cut off anywhere, it can be repeated.
"""

from __future__ import annotations

import contextlib
import logging
from collections.abc import Sequence
from dataclasses import replace

import pyarrow as pa
import yaml

from faar_ray.config.trial import TrialConfig
from faar_ray.errors import DataError
from faar_ray.records import EpochRecord
from faar_ray.storage.atomic import atomic_write_or_storage_error, clear_leftovers, storage_error_on_oserror
from faar_ray.storage.run_location import TrialPaths
from faar_ray.tracking.files.epoch_file import parts_of, read_trial_records, write_epochs
from faar_ray.tracking.files.rank_trace import rank_table, read_rank_trace, write_rank_trace
from faar_ray.tracking.files.sine_trace import write_sine_trace
from faar_ray.tracking.files.trial_pictures import draw_pictures

log = logging.getLogger(__name__)


def clear_trial_leftovers(trial: TrialPaths) -> None:
    """Remove half-written files of a process of this trial that was killed."""
    for folder in (trial.folder, trial.folder / "checkpoints", trial.records):
        clear_leftovers(folder)
    clear_leftovers(trial.trace.parent, trial.trace.name)


def write_config(trial: TrialPaths, config: TrialConfig) -> None:
    """`config.yaml` of a trial, every key of it."""
    with atomic_write_or_storage_error(trial.folder / "config.yaml") as scratch:
        scratch.write_text(yaml.safe_dump(config.model_dump(mode="json"), sort_keys=False))


def write_trial_files(trial: TrialPaths, records: Sequence[EpochRecord]) -> None:
    """Write the files of an ended trial from all its records, then remove the parts."""
    parts = parts_of(trial)
    write_epochs(trial.epochs, records)
    write_rank_trace(trial.trace, trial.trial_id, [row for record in records for row in record.ranks])
    write_sine_trace(trial.sines, trial.trial_id, [row for record in records for row in record.sines])

    for path in parts:
        with storage_error_on_oserror(path):
            path.unlink(missing_ok=True)
    with contextlib.suppress(OSError):  # another process of this trial may just have added a part
        trial.records.rmdir()


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


def read_trial_ranks(trial: TrialPaths) -> pa.Table:
    """The rank trace of a trial, also of one that has not ended.

    Raises:
        DataError: naming the file that is missing or broken.
    """
    if not parts_of(trial):
        return read_rank_trace(trial.trace)
    records, _ = read_trial_records(trial)
    return rank_table(trial.trial_id, [row for record in records.values() for row in record.ranks])


def finish_trial_files(trial: TrialPaths, title: str, *, pictures: bool = True) -> bool:
    """Complete the files of a trial that has ended and draw its pictures; True if anything was written.

    For whoever did not train it: its process may have been killed, and run on another machine. Idempotent.

    Args:
        trial: where its files are.
        title: of its pictures.
        pictures: whether to draw them.

    Raises:
        DataError: the trace is damaged and there is nothing to write it from.
        StorageError: the files cannot be read or written.
    """
    if trace_fault(trial) is None and not parts_of(trial) and trial.rank_picture.exists():
        return False
    files = (trial.records, trial.epochs, trial.trace, trial.sines, trial.rank_picture, trial.sine_picture)
    remote = replace(trial.remote_copy, parts=tuple(path.relative_to(trial.run).as_posix() for path in files))
    try:
        remote.pull()
    except FileNotFoundError:  # the trial's own process merged its parts just now
        remote.pull()

    written = complete_trial_files(trial)
    if pictures:
        written |= draw_pictures(trial, title)
    if written:
        remote.push()
    return written
