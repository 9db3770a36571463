"""The rank trace: one row per (epoch, adapter), enough to recompute K for this coverage rho or any other."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq

from faar_ray.errors import DataError
from faar_ray.records import RankRecord
from faar_ray.tracking.atomic import storing
from faar_ray.tracking.parquet import read_table

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
    rows = [{"trial_id": trial_id, **asdict(record)} for record in records]
    with storing(path) as scratch:
        pq.write_table(pa.Table.from_pylist(rows, schema=SCHEMA), scratch, write_page_checksum=True)


def read_rank_trace(path: Path) -> pa.Table:
    """Read one trial's file, or every `*.parquet` file of a folder in order of name.

    Raises:
        DataError: naming the file that is missing, broken or no rank trace.
    """
    if not path.is_dir():
        return _read_file(path)
    tables = [_read_file(file) for file in sorted(path.glob("*.parquet"))]
    return pa.concat_tables(tables) if tables else SCHEMA.empty_table()


def _read_file(path: Path) -> pa.Table:
    table = read_table(path, "rank trace")
    lacking = [name for name in SCHEMA.names if name not in table.column_names]
    if lacking:
        raise DataError(f"{path}: not a rank trace: column {', '.join(lacking)} is missing")
    try:
        return table.select(SCHEMA.names).cast(SCHEMA)
    except pa.ArrowException as fault:
        raise DataError(f"{path}: a rank trace with other column types ({fault})") from None
