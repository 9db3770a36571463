"""A trial's epochs on disk: a row per epoch with its metrics (a column each), rank records and sine records (nested).

While a trial runs, each epoch adds one small file of one row, a part. When the trial ends, `epochs.parquet` holds all
rows and the parts are gone (see `trial_files`). A trial that continues adds parts again, so readers unite both.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa

from faar_ray.errors import DataError
from faar_ray.records import EpochRecord, RankRecord, SineRecord
from faar_ray.storage.run_location import TrialPaths
from faar_ray.tracking.files.parquet import Record, read_table, record_columns, record_of_row, write_table

NESTED = ("ranks", "sines")
KIND = "file of epochs"


def write_epochs(path: Path, records: Sequence[EpochRecord]) -> None:
    """Write a row per epoch, atomically; a metric that an epoch lacks is null."""
    names = list(dict.fromkeys(name for record in records for name in record.metrics))
    columns = {"epoch": pa.array([record.epoch for record in records], pa.int32())}
    columns |= {name: pa.array([r.metrics.get(name) for r in records], pa.float64()) for name in names}
    columns["ranks"] = _nested(RankRecord, [record.ranks for record in records])
    columns["sines"] = _nested(SineRecord, [record.sines for record in records])
    write_table(path, pa.table(columns))


def read_epoch_records(path: Path) -> list[EpochRecord]:
    """Undo `write_epochs`.

    Raises:
        DataError: naming the file that is missing, broken or of another kind.
    """
    rows = _read(path).to_pylist()
    try:
        return [_record_of(row) for row in rows]
    except (KeyError, TypeError) as error:
        raise DataError(f"{path}: holds no records of ranks and sines ({error!r})") from None


def part_path(trial: TrialPaths, epoch: int) -> Path:
    """`<folder>/records/epoch_0003.parquet`."""
    return trial.records / f"epoch_{epoch:04d}.parquet"


def parts_of(trial: TrialPaths) -> list[Path]:
    """The parts that a trial has, oldest first."""
    return sorted(trial.records.glob("epoch_*.parquet"))


def add_epoch(trial: TrialPaths, record: EpochRecord) -> None:
    """Write one epoch's part; the other epochs' files stay as they are."""
    write_epochs(part_path(trial, record.epoch), [record])


def read_trial_records(trial: TrialPaths) -> tuple[dict[int, EpochRecord], dict[Path, DataError]]:
    """All epochs that can be read, by number, and an error for each file that cannot.

    Parts are read first: a trial that ends writes `epochs.parquet` before it removes them.
    """
    records: dict[int, EpochRecord] = {}
    errors: dict[Path, DataError] = {}
    for path in [*parts_of(trial), trial.epochs]:
        try:
            records = {record.epoch: record for record in read_epoch_records(path)} | records
        except DataError as error:
            if path.exists():
                errors[path] = error
    return dict(sorted(records.items())), errors


def read_epochs(trial: TrialPaths) -> dict[int, dict[str, float]]:
    """Metrics of every finished epoch of a trial that runs or has ended, in order; empty without any.

    Raises:
        DataError: naming the file that is broken or of another kind.
    """
    epochs: dict[int, dict[str, float]] = {}
    for path in [*parts_of(trial), trial.epochs]:
        try:
            rows = _read(path, without=NESTED).to_pylist()
        except DataError:
            if path.exists():
                raise
            continue  # none yet, or a part that was just merged
        epochs = {row["epoch"]: _metrics_of(row) for row in rows} | epochs
    return dict(sorted(epochs.items()))


def _read(path: Path, without: Sequence[str] = ()) -> pa.Table:
    table = read_table(path, KIND)
    if "epoch" not in table.column_names:
        raise DataError(f"{path}: not a {KIND}: column epoch is missing")
    return table.drop_columns([name for name in without if name in table.column_names])


def _nested(kind: type[Record], epochs: Sequence[Sequence[Record]]) -> pa.Array:
    """One list of records per epoch."""
    columns = record_columns(kind, [record for records in epochs for record in records])
    offsets = np.cumsum([0, *(len(records) for records in epochs)], dtype=np.int32)
    return pa.ListArray.from_arrays(offsets, pa.StructArray.from_arrays(columns.values(), names=list(columns)))


def _record_of(row: dict[str, Any]) -> EpochRecord:
    ranks = tuple(record_of_row(RankRecord, record) for record in row["ranks"])
    sines = tuple(record_of_row(SineRecord, record) for record in row["sines"])
    return EpochRecord(row["epoch"], _metrics_of(row), ranks, sines)


def _metrics_of(row: dict[str, Any]) -> dict[str, float]:
    return {name: value for name, value in row.items() if value is not None and name not in ("epoch", *NESTED)}
