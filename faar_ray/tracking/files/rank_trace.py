"""The rank trace: one row per (epoch, adapter), enough to recompute K for this coverage rho or any other."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import pyarrow as pa

from faar_ray.records import RankRecord
from faar_ray.tracking.files.parquet import read_records, write_records

SCHEMA = pa.schema(
    [
        pa.field("trial_id", pa.string()),
        pa.field("epoch", pa.int32()),
        pa.field("stage", pa.int16()),
        pa.field("block", pa.int16()),
        pa.field("layer", pa.string()),
        pa.field("task", pa.string()),
        pa.field("rank_before", pa.int32()),
        pa.field("rank", pa.int32()),
        pa.field("scope", pa.string()),
        pa.field("rho", pa.float64()),
        pa.field("coverage", pa.float64()),
        pa.field("importance", pa.list_(pa.float32())),
        pa.field("unobserved", pa.int32()),
        pa.field("params", pa.int64()),
    ]
)
"""Columns and types of a trace file (DESIGN.md, rank trace)."""


def write_rank_trace(path: Path, trial_id: str, records: Sequence[RankRecord]) -> None:
    """Write the whole trace of one trial, atomically; a trial without adapters gives a file without rows."""
    write_records(path, SCHEMA, trial_id, records)


def read_rank_trace(path: Path) -> pa.Table:
    """Read one trial's file, or every `*.parquet` file of a folder in order of name.

    Raises:
        DataError: naming the file that is missing, broken or no rank trace.
    """
    if not path.is_dir():
        return read_records(path, SCHEMA, "rank trace")
    tables = [read_records(file, SCHEMA, "rank trace") for file in sorted(path.glob("*.parquet"))]
    return pa.concat_tables(tables) if tables else SCHEMA.empty_table()
