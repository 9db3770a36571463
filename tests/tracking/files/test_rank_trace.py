from __future__ import annotations

from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from faar_ray.errors import DataError
from faar_ray.records import RankRecord
from faar_ray.tracking.files.rank_trace import SCHEMA, read_rank_trace, write_rank_trace


def record(epoch: int = 0, rank: int = 3) -> RankRecord:
    return RankRecord(epoch, 1, 0, "fc1", "shared", 4, rank, "pooled", 0.9, 0.93, (0.5, 0.25, 0.2, 0.0), 1, 300)


def test_a_trace_comes_back_with_the_contracts_columns_and_types(tmp_path: Path) -> None:
    write_rank_trace(tmp_path / "t0.parquet", "t0", [record(0), record(1)])

    table = read_rank_trace(tmp_path / "t0.parquet")

    assert table.schema.equals(SCHEMA)
    assert table["epoch"].to_pylist() == [0, 1]
    assert table["trial_id"].to_pylist() == ["t0", "t0"]
    assert table["importance"].to_pylist()[0] == pytest.approx([0.5, 0.25, 0.2, 0.0])


def test_k_can_be_recomputed_from_a_row(tmp_path: Path) -> None:
    write_rank_trace(tmp_path / "t0.parquet", "t0", [record()])
    row = read_rank_trace(tmp_path / "t0.parquet").to_pylist()[0]

    shares = np.cumsum(row["importance"]) / np.sum(row["importance"])
    k = int(np.argmax(shares >= row["rho"])) + 1

    assert k == row["rank"]


def test_a_folder_reads_as_one_table_in_order_of_name(tmp_path: Path) -> None:
    for name in ("t1", "t0"):
        write_rank_trace(tmp_path / "rank_trace=x" / f"{name}.parquet", name, [record()])

    table = read_rank_trace(tmp_path / "rank_trace=x")

    assert table["trial_id"].to_pylist() == ["t0", "t1"]
    assert table.schema.equals(SCHEMA)


def test_a_trial_without_adapters_leaves_a_file_without_rows(tmp_path: Path) -> None:
    write_rank_trace(tmp_path / "c0.parquet", "c0", [])

    assert read_rank_trace(tmp_path / "c0.parquet").num_rows == 0
    assert read_rank_trace(tmp_path / "c0.parquet").schema.equals(SCHEMA)


def test_any_parquet_reader_opens_it(tmp_path: Path) -> None:
    write_rank_trace(tmp_path / "t0.parquet", "t0", [record()])

    assert pq.read_schema(tmp_path / "t0.parquet").field("importance").type == pa.list_(pa.float32())


def test_a_rewrite_replaces_the_file_and_leaves_nothing_beside_it(tmp_path: Path) -> None:
    for epochs in (1, 2):
        write_rank_trace(tmp_path / "t0.parquet", "t0", [record(e) for e in range(epochs)])

    assert read_rank_trace(tmp_path / "t0.parquet").num_rows == 2
    assert [p.name for p in tmp_path.iterdir()] == ["t0.parquet"]


def test_a_write_that_fails_keeps_the_old_file(tmp_path: Path) -> None:
    path = tmp_path / "t0.parquet"
    write_rank_trace(path, "t0", [record()])
    before = path.read_bytes()

    with pytest.raises((pa.ArrowException, OverflowError, ValueError)):
        write_rank_trace(path, "t0", [record(epoch=2**40)])

    assert path.read_bytes() == before
    assert [p.name for p in tmp_path.iterdir()] == ["t0.parquet"]


@pytest.mark.parametrize("content", [b"", b"PAR1 but not really PAR1", b"PAR1"])
def test_a_broken_file_is_named(tmp_path: Path, content: bytes) -> None:
    (tmp_path / "t0.parquet").write_bytes(content)

    with pytest.raises(DataError, match=r"t0\.parquet"):
        read_rank_trace(tmp_path)


def test_a_missing_file_and_a_foreign_one_are_named(tmp_path: Path) -> None:
    pq.write_table(pa.table({"x": [1]}), tmp_path / "other.parquet")

    with pytest.raises(DataError, match=r"no\.parquet: no such rank trace"):
        read_rank_trace(tmp_path / "no.parquet")
    with pytest.raises(DataError, match=r"other\.parquet: not a rank trace"):
        read_rank_trace(tmp_path / "other.parquet")
