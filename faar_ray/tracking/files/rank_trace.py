"""The rank trace: one row per (epoch, adapter), enough to recompute K for this coverage rho or any other."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import pyarrow as pa

from faar_ray.errors import DataError
from faar_ray.records import RankRecord
from faar_ray.tracking.files.parquet import read_trace, trace_schema, trace_table, write_table

SCHEMA = trace_schema(RankRecord)
"""Columns and types of a trace file (DESIGN.md, rank trace); columns of a rank policy's own follow them."""


def write_rank_trace(path: Path, trial_id: str, records: Sequence[RankRecord]) -> None:
    """Write the whole trace of one trial, atomically; a trial without adapters gives a file without rows."""
    write_table(path, rank_table(trial_id, records))


def rank_table(trial_id: str, records: Sequence[RankRecord]) -> pa.Table:
    """The trace in memory."""
    return trace_table(RankRecord, trial_id, records)


def read_rank_trace(path: Path) -> pa.Table:
    """Read one trial's file, or every `*.parquet` file of a folder in order of name.

    Raises:
        DataError: naming the file that is missing, broken or no rank trace.
    """
    if not path.is_dir():
        return read_trace(path, RankRecord, "rank trace")
    tables = [read_trace(file, RankRecord, "rank trace") for file in sorted(path.glob("*.parquet"))]
    try:
        return pa.concat_tables([SCHEMA.empty_table(), *tables], promote_options="permissive")
    except pa.ArrowException as error:
        raise DataError(f"{path}: traces with different types of one column ({error})") from None
