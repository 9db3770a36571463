"""What a trial writes beside its checkpoints and its epochs' parts."""

from __future__ import annotations

import contextlib
from collections.abc import Sequence

import pyarrow as pa
import yaml

from faar_ray.config.trial import TrialConfig
from faar_ray.records import EpochRecord
from faar_ray.storage.atomic import atomic_write_or_storage_error, clear_leftovers, storage_error_on_oserror
from faar_ray.storage.run_location import TrialPaths
from faar_ray.tracking.files.epoch_file import parts_of, read_trial_records, write_epochs
from faar_ray.tracking.files.rank_trace import rank_table, read_rank_trace, write_rank_trace
from faar_ray.tracking.files.sine_trace import write_sine_trace


def clear_trial_leftovers(trial: TrialPaths) -> None:
    """Remove half-written files of a process of this trial that was killed."""
    for folder in (trial.folder, trial.folder / "checkpoints", trial.records):
        clear_leftovers(folder)
    clear_leftovers(trial.trace.parent, trial.trace.name)


def write_config(trial: TrialPaths, config: TrialConfig) -> None:
    """`config.yaml` of a trial, every key of it."""
    with atomic_write_or_storage_error(trial.folder / "config.yaml") as scratch:
        scratch.write_text(yaml.safe_dump(config.model_dump(mode="json"), sort_keys=False))


def reopen_trial_files(trial: TrialPaths, records: Sequence[EpochRecord]) -> None:
    """Keep only these epochs of a trial that starts or continues: what it writes when it ends is removed."""
    parts = parts_of(trial)
    write_epochs(trial.epochs, records)
    for path in (*parts, trial.trace, trial.sines, trial.rank_picture, trial.sine_picture):
        with storage_error_on_oserror(path):
            path.unlink(missing_ok=True)


def write_trial_files(trial: TrialPaths, records: Sequence[EpochRecord]) -> None:
    """Write the files of an ended trial from all its records, then remove the parts; cut off, it can be repeated."""
    parts = parts_of(trial)
    write_epochs(trial.epochs, records)
    write_rank_trace(trial.trace, trial.trial_id, [row for record in records for row in record.ranks])
    write_sine_trace(trial.sines, trial.trial_id, [row for record in records for row in record.sines])

    for path in parts:
        with storage_error_on_oserror(path):
            path.unlink(missing_ok=True)
    with contextlib.suppress(OSError):  # another process of this trial may just have added a part
        trial.records.rmdir()


def read_trial_ranks(trial: TrialPaths) -> pa.Table:
    """The rank trace of a trial, also of one that has not ended.

    Raises:
        DataError: naming the file that is missing or broken.
    """
    if not parts_of(trial):
        return read_rank_trace(trial.trace)
    records, _ = read_trial_records(trial)
    return rank_table(trial.trial_id, [row for record in records.values() for row in record.ranks])
