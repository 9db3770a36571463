"""Packed shards give what the reader gave, know what they hold, and are continued where packing was cut."""

from __future__ import annotations

from pathlib import Path

import pyarrow.parquet as pq
import pytest
import torch
from torch import Tensor

from faar_ray.config.trial import DataConfig
from faar_ray.data import load_dataset, open_split
from faar_ray.data.datasets import Split
from faar_ray.data.packed.manifest import MANIFEST, read_manifest
from faar_ray.data.packed.reader import PackedReader
from faar_ray.data.packed.write import PackOptions, pack
from faar_ray.errors import ConfigError, DataError

from .conftest import CHANNELS, IMAGES, Photographs

NAMES = ("image", *CHANNELS)


def published(config: DataConfig) -> DataConfig:
    return config.model_copy(update={"protocol": "papers"})


def reader_of(config: DataConfig, split: Split) -> PackedReader:
    reader = open_split(config, split)
    assert isinstance(reader, PackedReader)
    return reader


def same(one: Tensor | None, other: Tensor | None) -> bool:
    if one is None or other is None:
        return one is other
    return one.dtype == other.dtype and torch.equal(one, other)


@pytest.mark.parametrize("split", ["train", "val", "test"])
def test_shards_give_what_the_reader_gives_bit_for_bit(config: DataConfig, packed: DataConfig, split: Split) -> None:
    original, reader = Photographs(published(config), split), reader_of(published(packed), split)
    assert len(original) == len(reader) == IMAGES["train" if split == "train" else "val"]
    for index in (0, 7, 8, len(reader) - 1):
        assert reader.id(index) == original.id(index)
        assert reader.image_bytes(index) == original.image_bytes(index)
        expected, sample = original.sample(index, NAMES), reader.sample(index, NAMES)
        assert [name for name in NAMES if not same(sample[name], expected[name])] == []


def test_a_search_s_val_is_held_out_of_the_published_train(packed: DataConfig) -> None:
    train, val = reader_of(packed, "train"), reader_of(packed, "val")
    ids = [[reader.id(index) for index in range(len(reader))] for reader in (train, val)]
    assert (len(ids[0]), len(ids[1])) == (60, 10)
    assert sorted(ids[0] + ids[1]) == [f"train-{index:03d}" for index in range(70)]


def test_a_sample_without_a_label_is_ignored_by_its_task(packed: DataConfig) -> None:
    data = load_dataset(published(packed), "val")
    assert data[0]["depth"].unique().tolist() == [255]
    assert data[1]["depth"].unique().numel() > 100


def test_packing_goes_on_where_it_was_cut(config: DataConfig, tmp_path: Path) -> None:
    pack(config, tmp_path, PackOptions(), processes=0)
    whole = (tmp_path / MANIFEST).read_bytes()
    first, second = tmp_path / "train-00000.parquet", tmp_path / "train-00001.parquet"
    before = first.stat().st_mtime_ns
    for path in (tmp_path / MANIFEST, second):
        path.unlink()
    pack(config, tmp_path, PackOptions(), processes=0)
    assert (tmp_path / MANIFEST).read_bytes() == whole
    assert first.stat().st_mtime_ns == before


def test_a_folder_with_other_data_is_not_written_over(config: DataConfig, packed: DataConfig) -> None:
    assert packed.root is not None
    with pytest.raises(DataError, match=r"holds photographs with semseg, edge, normals, depth, packed with other opt"):
        pack(config, Path(packed.root), PackOptions(compact=True), processes=0)


def test_compact_shards_round_normals_and_depth_and_shrink_images(config: DataConfig, tmp_path: Path) -> None:
    pack(config, tmp_path, PackOptions(longest=15, compact=True), processes=0)
    reader = reader_of(published(config).model_copy(update={"root": str(tmp_path)}), "val")
    sample = reader.sample(1, NAMES)
    shapes = {name: (value.dtype, tuple(value.shape[-2:])) for name, value in sample.items() if value is not None}
    assert shapes == {
        "image": (torch.uint8, (10, 15)),
        "semseg": (torch.uint8, (10, 15)),
        "edge": (torch.uint8, (10, 15)),
        "normals": (torch.int8, (10, 15)),
        "depth": (torch.float16, (10, 15)),
    }


def test_shards_of_another_data_set_or_without_a_task_are_refused(packed: DataConfig, config: DataConfig) -> None:
    with pytest.raises(ConfigError, match=r"data\.name: must be photographs, whose shards .* holds, got 'nyud'"):
        open_split(DataConfig(name="nyud", tasks=("semseg",), root=packed.root), "train")


def test_a_damaged_shard_or_manifest_is_named(packed: DataConfig) -> None:
    assert packed.root is not None
    shard = Path(packed.root) / "train-00000.parquet"
    content = bytearray(shard.read_bytes())
    middle = len(content) // 3
    content[middle : middle + 64] = bytes(64)
    shard.write_bytes(content)
    reader = reader_of(published(packed), "train")
    with pytest.raises(DataError, match=r"train-00000\.parquet: damaged shard"):
        for index in range(len(reader)):
            reader.sample(index, NAMES)

    manifest = Path(packed.root) / MANIFEST
    manifest.write_text(manifest.read_text().replace('"format": 1', '"format": 9'))
    with pytest.raises(DataError, match="format must be 1, got 9"):
        read_manifest(Path(packed.root))
    manifest.write_text("{")
    with pytest.raises(DataError, match="damaged"):
        read_manifest(Path(packed.root))


def test_a_shard_s_schema_names_types_and_classes(packed: DataConfig) -> None:
    assert packed.root is not None
    schema = pq.read_schema(Path(packed.root) / "val-00000.parquet")
    assert schema.names == ["id", *NAMES]
    assert schema.field("semseg").metadata == {
        b"type": b"segmentation",
        b"dtype": b"uint8, PNG",
        b"unit": b"",
        b"classes": b'["0", "1", "2", "3", "4"]',
    }
    assert schema.field("depth").metadata[b"unit"] == b"m"


def test_loader_processes_and_order_make_no_difference(packed: DataConfig) -> None:
    def batches(workers: int) -> list[dict[str, Tensor]]:
        data = load_dataset(packed.model_copy(update={"loader_workers": workers}), "train")
        return list(data.batches(batch_size=16, seed=3, epoch=2, train=True))

    none, one = batches(0), batches(1)
    assert [len(batch["image"]) for batch in none] == [16, 16, 16, 12]
    assert all(same(a[name], b[name]) for a, b in zip(none, one, strict=True) for name in a)
