"""The sine trace: one row per (epoch, layer, task), what makes or unmakes a task's weights sin(omega_t M)."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import pyarrow as pa

from faar_ray.records import SineRecord
from faar_ray.storage.atomic import storage_error_on_oserror
from faar_ray.tracking.files.parquet import read_trace, trace_schema, trace_table, write_table

SCHEMA = trace_schema(SineRecord)
"""Columns and types; the two cosines are null where there is none."""


def write_sine_trace(path: Path, trial_id: str, records: Sequence[SineRecord]) -> None:
    """Write the whole trace of one trial, atomically; without records, as of any other method, there is no file."""
    if records:
        write_table(path, trace_table(SineRecord, trial_id, records))
        return
    with storage_error_on_oserror(path):
        path.unlink(missing_ok=True)


def read_sine_trace(path: Path) -> pa.Table:
    """Read one trial's file.

    Raises:
        DataError: naming the file that is missing, broken or no sine trace.
    """
    return read_trace(path, SineRecord, "sine trace")
