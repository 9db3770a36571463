"""The sine trace: one row per (epoch, layer, task), what makes or unmakes a task's weights sin(omega_t M)."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import pyarrow as pa

from faar_ray.records import SineRecord
from faar_ray.storage.atomic import storage_error_on_oserror
from faar_ray.tracking.files.parquet import read_records, write_records

SCHEMA = pa.schema(
    [
        pa.field("trial_id", pa.string()),
        pa.field("epoch", pa.int32()),
        pa.field("stage", pa.int16()),
        pa.field("block", pa.int16()),
        pa.field("layer", pa.string()),
        pa.field("task", pa.string()),
        pa.field("omega", pa.float64()),
        pa.field("mean", pa.float64()),
        pa.field("std", pa.float64()),
        pa.field("skew", pa.float64()),
        pa.field("omega_std", pa.float64()),
        pa.field("rank", pa.int32()),
        pa.field("effective_rank", pa.float64()),
        pa.field("effective_rank_task", pa.float64()),
        pa.field("cosine", pa.float64()),
        pa.field("gradient_cosine", pa.float64()),
    ]
)
"""Columns and types; the two cosines are null where there is none."""


def write_sine_trace(path: Path, trial_id: str, records: Sequence[SineRecord]) -> None:
    """Write the whole trace of one trial, atomically; without records, as of any other method, there is no file."""
    if records:
        write_records(path, SCHEMA, trial_id, records)
        return
    with storage_error_on_oserror(path):
        path.unlink(missing_ok=True)


def read_sine_trace(path: Path) -> pa.Table:
    """Read one trial's file.

    Raises:
        DataError: naming the file that is missing, broken or no sine trace.
    """
    return read_records(path, SCHEMA, "sine trace")
