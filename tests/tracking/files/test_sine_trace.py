from __future__ import annotations

from math import isnan, nan
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from faar_ray.errors import DataError, StorageError
from faar_ray.records import SineRecord
from faar_ray.storage.run_location import RunLocation
from faar_ray.tracking.files.sine_trace import SCHEMA, read_sine_trace, write_sine_trace


def record(epoch: int = 0, cosine: float | None = 0.25, skew: float = 0.1) -> SineRecord:
    return SineRecord(epoch, 3, 1, "fc1", "depth", 9.0, 1e-3, 0.05, skew, 0.45, 64, 40.0, 90.0, cosine, None)


def test_a_trace_comes_back_as_it_was(tmp_path: Path) -> None:
    records = [record(0), record(1, cosine=None)]
    write_sine_trace(tmp_path / "t.parquet", "t0", records)

    table = read_sine_trace(tmp_path / "t.parquet")

    assert table.schema.equals(SCHEMA)
    rows = table.to_pylist()
    assert [row.pop("trial_id") for row in rows] == ["t0", "t0"]
    assert [SineRecord(**row) for row in rows] == records


def test_what_is_undefined_stays_apart_from_what_was_not_measured(tmp_path: Path) -> None:
    write_sine_trace(tmp_path / "t.parquet", "t0", [record(cosine=None, skew=nan)])

    (row,) = read_sine_trace(tmp_path / "t.parquet").to_pylist()

    assert row["cosine"] is None
    assert isnan(row["skew"])


def test_a_trial_without_records_has_no_file(tmp_path: Path) -> None:
    path = tmp_path / "t.parquet"
    write_sine_trace(path, "t0", [])
    assert list(tmp_path.iterdir()) == []
    write_sine_trace(path, "t0", [record()])
    write_sine_trace(path, "t0", [])
    assert list(tmp_path.iterdir()) == []


def test_a_rewrite_replaces_the_file_and_leaves_nothing_beside_it(tmp_path: Path) -> None:
    for epochs in (1, 2):
        write_sine_trace(tmp_path / "t.parquet", "t0", [record(e) for e in range(epochs)])

    assert read_sine_trace(tmp_path / "t.parquet").num_rows == 2
    assert [p.name for p in tmp_path.iterdir()] == ["t.parquet"]


def test_a_write_that_fails_keeps_the_old_file(tmp_path: Path) -> None:
    path = tmp_path / "t.parquet"
    write_sine_trace(path, "t0", [record()])
    before = path.read_bytes()

    with pytest.raises((pa.ArrowException, OverflowError, ValueError)):
        write_sine_trace(path, "t0", [record(epoch=2**40)])

    assert path.read_bytes() == before
    assert [p.name for p in tmp_path.iterdir()] == ["t.parquet"]


def test_a_place_that_cannot_be_written_is_the_storages_fault(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("in the way")

    for records in ([], [record()]):
        with pytest.raises(StorageError, match=r"storage\.path: .* cannot be written"):
            write_sine_trace(tmp_path / "file" / "t.parquet", "t0", records)


@pytest.mark.parametrize("damage", [b"", b"PAR1 but not really PAR1", None])
def test_a_broken_file_is_named(tmp_path: Path, damage: bytes | None) -> None:
    path = tmp_path / "t.parquet"
    write_sine_trace(path, "t0", [record()])
    whole = bytearray(path.read_bytes())
    whole[40] ^= 0xFF  # in the first page
    path.write_bytes(bytes(whole) if damage is None else damage)

    with pytest.raises(DataError, match=r"t\.parquet: not a readable Parquet file"):
        read_sine_trace(path)


def test_a_missing_file_and_a_foreign_one_are_named(tmp_path: Path) -> None:
    pq.write_table(pa.table({"x": [1]}), tmp_path / "other.parquet")
    pq.write_table(pa.table({name: ["text"] for name in SCHEMA.names}), tmp_path / "text.parquet")

    with pytest.raises(DataError, match=r"no\.parquet: no such sine trace"):
        read_sine_trace(tmp_path / "no.parquet")
    with pytest.raises(DataError, match=r"other\.parquet: not a sine trace: column trial_id, epoch"):
        read_sine_trace(tmp_path / "other.parquet")
    with pytest.raises(DataError, match=r"text\.parquet: a sine trace with other column types"):
        read_sine_trace(tmp_path / "text.parquet")


def test_it_lies_in_the_trials_folder(tmp_path: Path) -> None:
    assert RunLocation(tmp_path).trial("t0").sines == tmp_path / "trials" / "t0" / "sinewich_trace.parquet"
