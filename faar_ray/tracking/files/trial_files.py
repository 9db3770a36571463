"""What a trial writes beside its checkpoints."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import yaml

from faar_ray.config.trial import TrialConfig
from faar_ray.records import EpochRecord
from faar_ray.storage.atomic import atomic_write_or_storage_error, clear_leftovers
from faar_ray.storage.run_location import SINE_TRACE
from faar_ray.tracking.files.epoch_file import write_epochs
from faar_ray.tracking.files.rank_trace import write_rank_trace
from faar_ray.tracking.files.sine_trace import write_sine_trace


def clear_leftovers_of(folder: Path, trace: Path) -> None:
    """Half-written files of a process that was killed in this trial."""
    for part in (folder, folder / "checkpoints"):
        clear_leftovers(part)
    clear_leftovers(trace.parent, trace.name)


def write_config(folder: Path, config: TrialConfig) -> None:
    """`config.yaml` of a trial, every key of it."""
    with atomic_write_or_storage_error(folder / "config.yaml") as scratch:
        scratch.write_text(yaml.safe_dump(config.model_dump(mode="json"), sort_keys=False))


def write_epoch_files(folder: Path, trace: Path, trial_id: str, records: Sequence[EpochRecord]) -> None:
    """All metrics and both traces so far: no row twice, none missing, whatever was interrupted."""
    write_trace(trace, trial_id, records)
    write_sine_trace(folder / SINE_TRACE, trial_id, [row for record in records for row in record.sines])
    write_epochs(folder / "epochs.parquet", records)


def write_trace(trace: Path, trial_id: str, records: Sequence[EpochRecord]) -> None:
    """The whole rank trace so far: no row twice, none missing, whatever was interrupted."""
    write_rank_trace(trace, trial_id, [row for record in records for row in record.ranks])
