"""Shards come back as written, or an error names the damaged file."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch

from faar_ray.data.shards.shards import read_shard, shard_digest, write_shard
from faar_ray.errors import DataError

COLUMNS = {
    "image": torch.randint(0, 256, (5, 3, 8, 8), generator=torch.Generator().manual_seed(0)).to(torch.uint8),
    "normals": torch.arange(5 * 3 * 64).remainder(255).sub(127).view(5, 3, 8, 8).to(torch.int8),
    "depth": torch.linspace(0.5, 9, 5 * 64).view(5, 1, 8, 8).half(),
}


@pytest.fixture
def shard(tmp_path: Path) -> Path:
    path = tmp_path / "train-00000.parquet"
    write_shard(path, COLUMNS, {"generator_version": "1"})
    return path


def test_a_shard_comes_back_as_written(shard: Path) -> None:
    back = read_shard(shard, COLUMNS)
    assert all(torch.equal(back[name], values) and back[name].dtype == values.dtype for name, values in COLUMNS.items())


def test_only_the_columns_asked_for_are_read(shard: Path) -> None:
    assert list(read_shard(shard, ["depth"])) == ["depth"]


def test_equal_content_has_an_equal_digest(shard: Path, tmp_path: Path) -> None:
    write_shard(tmp_path / "again.parquet", COLUMNS, {"generator_version": "2"})
    write_shard(tmp_path / "other.parquet", COLUMNS | {"depth": COLUMNS["depth"] * 2}, {})
    assert shard_digest(shard) == shard_digest(tmp_path / "again.parquet") != shard_digest(tmp_path / "other.parquet")


@pytest.mark.parametrize("keep", [0, 3, 100, 900, -1])
def test_a_truncated_shard_is_named_with_what_to_do(shard: Path, keep: int) -> None:
    shard.write_bytes(shard.read_bytes()[:keep])
    with pytest.raises(DataError, match=r"train-00000\.parquet: damaged shard .*delete this file"):
        read_shard(shard, COLUMNS)


def test_a_flipped_bit_anywhere_is_noticed_or_harmless(shard: Path) -> None:
    whole, noticed = shard.read_bytes(), 0
    for position in range(0, len(whole), 37):
        shard.write_bytes(whole[:position] + bytes([whole[position] ^ 0x10]) + whole[position + 1 :])
        try:
            back = read_shard(shard, COLUMNS)
        except DataError as error:
            noticed += str(shard) in str(error)
        else:
            assert all(torch.equal(back[name], values) for name, values in COLUMNS.items())
    assert noticed > 20


def test_a_column_that_is_not_there_is_a_damaged_shard(shard: Path) -> None:
    with pytest.raises(DataError, match=r"train-00000\.parquet"):
        read_shard(shard, ["edge"])


def test_nothing_but_the_shard_is_left_behind(shard: Path) -> None:
    assert [path.name for path in shard.parent.iterdir()] == [shard.name]


def test_a_folder_that_cannot_be_made_is_an_error_for_people(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("in the way")
    with pytest.raises(DataError, match="FAAR_RAY_CACHE"):
        write_shard(tmp_path / "file" / "x.parquet", COLUMNS, {})
