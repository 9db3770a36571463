"""Every epoch's metrics of one trial on disk, so that MLflow, a view, can be completed from it by anyone."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq

from faar_ray.errors import DataError
from faar_ray.records import EpochRecord
from faar_ray.storage.atomic import atomic_write_or_storage_error
from faar_ray.storage.run_location import TrialPaths
from faar_ray.tracking.files.parquet import read_table


def write_epochs(path: Path, records: Sequence[EpochRecord]) -> None:
    """Write all epochs so far, atomically: a row per epoch, a column per metric, null where an epoch lacks it."""
    names = list(dict.fromkeys(name for record in records for name in record.metrics))
    columns = {name: pa.array([r.metrics.get(name) for r in records], pa.float64()) for name in names}
    epochs = pa.array([record.epoch for record in records], pa.int32())
    with atomic_write_or_storage_error(path) as scratch:
        pq.write_table(pa.table({"epoch": epochs, **columns}), scratch)


def read_epochs(trial: TrialPaths) -> dict[int, dict[str, float]]:
    """Metrics of every finished epoch of a trial that runs or has ended, in order; empty without any.

    Raises:
        DataError: naming the file that is broken or of another kind.
    """
    path = trial.epochs
    if not path.is_file():
        return {}
    table = read_table(path, "file of epochs")
    if "epoch" not in table.column_names:
        raise DataError(f"{path}: not a file of epochs: column epoch is missing")
    rows = [{name: value for name, value in row.items() if value is not None} for row in table.to_pylist()]
    return dict(sorted((int(row.pop("epoch")), row) for row in rows))
