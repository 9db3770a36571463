"""Parquet files with page checksums, and tables of records: a column per field of their dataclass."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import fields
from pathlib import Path
from typing import Any, TypeVar, get_type_hints

import pyarrow as pa
import pyarrow.parquet as pq

from faar_ray.errors import DataError
from faar_ray.records import RankRecord, SineRecord
from faar_ray.storage.atomic import atomic_write_or_storage_error

Record = TypeVar("Record", RankRecord, SineRecord)
TYPES: dict[Any, pa.DataType] = {
    str: pa.string(),
    float: pa.float64(),
    float | None: pa.float64(),
    "int16": pa.int16(),
    "int32": pa.int32(),
    "int64": pa.int64(),
    "float32s": pa.list_(pa.float32()),
}
"""Column type of a field's annotation."""


def _columns_of(kind: type[RankRecord] | type[SineRecord]) -> pa.Schema:
    hints = get_type_hints(kind, include_extras=True)
    types = {name: getattr(hint, "__metadata__", (hint,))[0] for name, hint in hints.items() if name != "extra"}
    return pa.schema([pa.field(f.name, TYPES[types[f.name]]) for f in fields(kind) if f.name in types])


SCHEMAS: dict[Any, pa.Schema] = {kind: _columns_of(kind) for kind in (RankRecord, SineRecord)}
"""Columns of each kind of record, without those that a record names itself (`extra`)."""


def trace_schema(kind: type[RankRecord] | type[SineRecord]) -> pa.Schema:
    """Columns of a trace file: `trial_id`, then the record's."""
    return pa.schema([pa.field("trial_id", pa.string()), *SCHEMAS[kind]])


def record_columns(kind: type[Record], records: Sequence[Record]) -> dict[str, pa.Array]:
    """Records as columns: the dataclass's fields, then what the records name in `extra`.

    Raises:
        ValueError: an extra column has the name of a field.
    """
    schema = SCHEMAS[kind]
    columns = {f.name: pa.array([getattr(record, f.name) for record in records], f.type) for f in schema}
    extras: list[Mapping[str, Any]] = [getattr(record, "extra", {}) for record in records]
    for name in dict.fromkeys(name for extra in extras for name in extra):
        if name in columns or name == "trial_id":
            raise ValueError(f"extra column {name!r}: the rank trace has a column of this name")
        columns[name] = pa.array([extra.get(name) for extra in extras])
    return columns


def record_of_row(kind: type[Record], row: Mapping[str, Any]) -> Record:
    """Undo `record_columns` for one row; columns that are null in `extra` are left out."""
    plain = {name: tuple(value) if isinstance(value, list) else value for name, value in row.items()}
    arguments: dict[str, Any] = {name: plain.pop(name) for name in SCHEMAS[kind].names}
    if extra := {name: value for name, value in plain.items() if value is not None}:
        arguments["extra"] = extra
    return kind(**arguments)


def trace_table(kind: type[Record], trial_id: str, records: Sequence[Record]) -> pa.Table:
    """A trial's trace in memory."""
    names = pa.array([trial_id] * len(records), pa.string())
    return pa.table({"trial_id": names, **record_columns(kind, records)})


def read_trace(path: Path, kind: type[RankRecord] | type[SineRecord], what: str) -> pa.Table:
    """A trace file: the schema's columns, then the extra ones of rank records.

    Raises:
        DataError: naming the file that is missing, broken or of another kind.
    """
    table, schema = read_table(path, what), trace_schema(kind)
    lacking = [name for name in schema.names if name not in table.column_names]
    if lacking:
        raise DataError(f"{path}: not a {what}: column {', '.join(lacking)} is missing")

    extra = [name for name in table.column_names if name not in schema.names and kind is RankRecord]
    try:
        standard = table.select(schema.names).cast(schema)
    except pa.ArrowException as error:
        raise DataError(f"{path}: a {what} with other column types ({error})") from None
    for name in extra:
        standard = standard.append_column(name, table[name])
    return standard


def write_table(path: Path, table: pa.Table) -> None:
    """Write one file, atomically and with checksums."""
    with atomic_write_or_storage_error(path) as scratch:
        pq.write_table(table, scratch, write_page_checksum=True)


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
    except (pa.ArrowException, OSError) as error:
        raise DataError(f"{path}: not a readable Parquet file ({error})") from None
