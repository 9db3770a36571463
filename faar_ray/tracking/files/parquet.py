"""Parquet files that a person may have lost or damaged, and traces: a row per record of one trial."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import fields
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq

from faar_ray.errors import DataError
from faar_ray.records import RankRecord, SineRecord
from faar_ray.storage.atomic import atomic_write_or_storage_error


def write_records(path: Path, schema: pa.Schema, trial_id: str, records: Sequence[RankRecord | SineRecord]) -> None:
    """Write a trial's records, atomically; the columns are `trial_id` and the records' fields."""
    rows = [{"trial_id": trial_id, **{f.name: getattr(record, f.name) for f in fields(record)}} for record in records]
    with atomic_write_or_storage_error(path) as scratch:
        pq.write_table(pa.Table.from_pylist(rows, schema=schema), scratch, write_page_checksum=True)


def read_records(path: Path, schema: pa.Schema, what: str) -> pa.Table:
    """Undo `write_records`; columns beyond the schema are left out.

    Raises:
        DataError: naming the file that is missing, broken or of another kind.
    """
    table = read_table(path, what)
    lacking = [name for name in schema.names if name not in table.column_names]
    if lacking:
        raise DataError(f"{path}: not a {what}: column {', '.join(lacking)} is missing")
    try:
        return table.select(schema.names).cast(schema)
    except pa.ArrowException as fault:
        raise DataError(f"{path}: a {what} with other column types ({fault})") from None


def read_table(path: Path, what: str) -> pa.Table:
    """One file, whole.

    Args:
        path: the file; its folder's name never becomes a column.
        what: the file's kind, for the message.

    Raises:
        DataError: naming the file, where it is missing or broken.
    """
    try:
        return pq.read_table(path, partitioning=None, page_checksum_verification=True)
    except FileNotFoundError:
        raise DataError(f"{path}: no such {what}") from None
    except (pa.ArrowException, OSError) as fault:
        raise DataError(f"{path}: not a readable Parquet file ({fault})") from None
