"""`results.parquet`: one row per trial, with every searched parameter and every final metric as a column."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterable, Sequence
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq

from faar_ray.errors import DataError
from faar_ray.records import TrialResult
from faar_ray.storage.atomic import atomic_write
from faar_ray.tracking.files.parquet import read_table

HEAD = {
    "trial_id": pa.string(),
    "config_id": pa.string(),
    "seed": pa.int64(),
    "role": pa.string(),
    "state": pa.string(),
}
TAIL = {"seconds": pa.float64(), "epochs": pa.int64(), "run_id": pa.string(), "reason": pa.string()}
LATER = {"parent": pa.string(), "inherited": pa.int64()}
"""Columns that files of older versions lack."""
COLUMNS = b"faar_ray.columns"
"""Schema metadata: which columns are parameters and which are metrics, `{"params": {column: name}, ...}`."""
PROTOCOL = b"faar_ray.protocol"
JSON = {b"faar_ray.encoding": b"json"}


def write_results(path: Path, results: Sequence[TrialResult], measured: str = "") -> None:
    """Write all trials, atomically; the schema's metadata says how the metrics were measured (`measured_as`).

    A parameter's column has its values' type; where they mix types, are lists or are an explicit null, it holds JSON.
    """
    params, metrics = _names(r.params for r in results), _names(r.metrics for r in results)
    taken, last = {*HEAD, *TAIL, *LATER}, TAIL | LATER
    columns = {"params": _columns(params, taken, "param."), "metrics": _columns(metrics, taken, "metric.")}
    fields: list[pa.Field] = [pa.field(name, kind) for name, kind in HEAD.items()]
    arrays = [pa.array([getattr(r, name) for r in results], kind) for name, kind in HEAD.items()]
    for column, name in columns["params"].items():
        kind, encode = _parameter_type([r.params[name] for r in results if name in r.params])
        fields.append(pa.field(column, kind, metadata=JSON if encode is json.dumps else None))
        arrays.append(pa.array([encode(r.params[name]) if name in r.params else None for r in results], kind))
    for column, name in columns["metrics"].items():
        fields.append(pa.field(column, pa.float64()))
        arrays.append(pa.array([r.metrics.get(name) for r in results], pa.float64()))
    fields += [pa.field(name, kind) for name, kind in last.items()]
    arrays += [pa.array([getattr(r, name) for r in results], kind) for name, kind in last.items()]
    schema = pa.schema(fields, metadata={COLUMNS: json.dumps(columns).encode(), PROTOCOL: measured.encode()})
    with atomic_write(path) as scratch:
        pq.write_table(pa.Table.from_arrays(arrays, schema=schema), scratch, write_page_checksum=True)


def read_results(path: Path) -> list[TrialResult]:
    """Read what `write_results` wrote.

    Raises:
        DataError: naming the file, where it is missing, broken or something else.
    """
    table = read_table(path, "results file")
    notes = (table.schema.metadata or {}).get(COLUMNS)
    if notes is None or not {*HEAD, *TAIL} <= set(table.column_names):
        raise DataError(f"{path}: not a results file of faar_ray.tune")
    columns = json.loads(notes)
    coded = {f.name for f in table.schema if (f.metadata or {}).items() >= JSON.items()}
    return [_result(row, columns, coded) for row in table.to_pylist()]


def _result(row: dict[str, Any], columns: dict[str, dict[str, str]], coded: set[str]) -> TrialResult:
    def values(group: str) -> dict[str, Any]:
        present = ((c, name) for c, name in columns[group].items() if row[c] is not None)
        return {name: json.loads(row[c]) if c in coded else row[c] for c, name in present}

    fixed = {name: row[name] for name in (*HEAD, *TAIL, *(name for name in LATER if name in row))}
    return TrialResult(**fixed, params=values("params"), metrics=values("metrics"))


def _names(mappings: Iterable[dict[str, Any]]) -> list[str]:
    """All keys, in order of first appearance."""
    return list(dict.fromkeys(name for mapping in mappings for name in mapping))


def _columns(names: Sequence[str], taken: set[str], prefix: str) -> dict[str, str]:
    """Column for each name: the name itself, prefixed where a column has that name already; marks them as taken."""
    out: dict[str, str] = {}
    for name in names:
        column = name
        while column in taken:
            column = prefix + column
        taken.add(column)
        out[column] = name
    return out


def _parameter_type(values: Sequence[Any]) -> tuple[pa.DataType, Callable[[Any], Any]]:
    """Arrow type of a parameter's column and the function that prepares a value for it."""
    kinds = {type(value) for value in values}
    if kinds == {bool}:
        return pa.bool_(), _same
    if kinds == {int} and all(-(2**63) <= v < 2**63 for v in values):
        return pa.int64(), _same
    if kinds == {float}:
        return pa.float64(), _same
    if kinds == {str}:
        return pa.string(), _same
    return pa.string(), json.dumps


def _same(value: Any) -> Any:
    return value
