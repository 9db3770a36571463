"""The cache: keyed by the generator, shared between sizes, safe for two at once."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest
import torch

from faar_ray.config.paths import default_cache_dir
from faar_ray.config.trial import DataConfig
from faar_ray.data.scenes import scene_shards
from faar_ray.data.scenes.scene_shards import compact, make_shards, render_shard, shard_paths
from faar_ray.data.shards.shards import read_shard
from faar_ray.errors import DataError

from ..conftest import MakeConfig, in_memory, rooted


def test_bytes_do_not_depend_on_the_number_of_threads(make_config: MakeConfig) -> None:
    before, shards = torch.get_num_threads(), []
    try:
        for threads in (1, 3):
            torch.set_num_threads(threads)
            shards.append(compact(render_shard(make_config(), "train", 0)))
            assert torch.get_num_threads() == threads
    finally:
        torch.set_num_threads(before)
    assert all(torch.equal(shards[0][name], shards[1][name]) for name in shards[0])


def test_a_small_split_is_the_prefix_of_a_large_one(make_config: MakeConfig, cache: Path) -> None:
    small = in_memory(make_config(train_images=7, root=str(cache)), "train")
    large = in_memory(make_config(train_images=65, root=str(cache)), "train")
    assert (len(small), len(large)) == (7, 65)
    assert torch.equal(small.stored["image"], large.stored["image"][:7])


def test_splits_seeds_and_domains_share_no_image(make_config: MakeConfig, cache: Path) -> None:
    asked = [({}, "train"), ({}, "val"), ({}, "test"), ({"seed": 1}, "val"), ({"domain": "source"}, "val")]
    images = [in_memory(make_config(**c, root=str(cache)), s).stored["image"] for c, s in asked]
    assert len({image.numpy().tobytes() for image in torch.cat(images)}) == 60 * len(asked)


@pytest.mark.parametrize("change", [{"seed": 1}, {"domain": "source"}, {"image_size": 40}])
def test_the_key_follows_the_generators_parameters(make_config: MakeConfig, change: dict[str, object]) -> None:
    def key(config: DataConfig) -> str:
        return shard_paths(config, "val")[0].parent.name

    assert key(make_config(**change)) != key(make_config())
    assert key(make_config(val_images=300, tasks=("depth",))) == key(make_config())


def test_the_key_follows_the_generators_version(make_config: MakeConfig, monkeypatch: pytest.MonkeyPatch) -> None:
    before = shard_paths(make_config(), "val")
    monkeypatch.setattr(scene_shards, "GENERATOR_VERSION", 99)
    assert shard_paths(make_config(), "val") != before


def test_the_cache_is_where_the_environment_says(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("FAAR_RAY_CACHE", str(tmp_path))
    assert default_cache_dir() == tmp_path
    monkeypatch.delenv("FAAR_RAY_CACHE")
    monkeypatch.setenv("HOME", str(tmp_path))
    assert default_cache_dir() == tmp_path / ".cache" / "faar_ray"


def cut(raw: bytes) -> bytes:
    return raw[:2000]


def emptied(raw: bytes) -> bytes:
    return b""


def flipped(raw: bytes) -> bytes:
    return raw[:3000] + bytes([raw[3000] ^ 1]) + raw[3001:]


@pytest.mark.parametrize("damage", [cut, emptied, flipped])
def test_a_damaged_shard_of_scenes_is_named_and_made_again(
    damage: Callable[[bytes], bytes], make_config: MakeConfig, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    config = make_config(val_images=5)
    (path,) = make_shards(config, "val", tmp_path)
    whole = path.read_bytes()
    path.write_bytes(damage(whole))
    with pytest.raises(DataError, match=str(path)):
        read_shard(path, ["image"])
    loaded = in_memory(rooted(config, tmp_path), "val")
    assert path.read_bytes() == whole
    assert torch.equal(loaded.stored["image"], read_shard(path, ["image"])["image"][:5])
    assert str(path) in caplog.text


def test_two_processes_at_once_make_one_good_cache(make_config: MakeConfig, tmp_path: Path) -> None:
    pack = [sys.executable, "-m", "faar_ray.data", "pack", "scenes", "--size", "32", "--images", "60"]
    environment = os.environ | {"FAAR_RAY_CACHE": str(tmp_path), "OMP_NUM_THREADS": "1"}
    both = [subprocess.Popen(pack, env=environment, stdout=subprocess.PIPE, text=True) for _ in range(2)]
    printed = [process.communicate(timeout=120)[0].strip() for process in both]
    assert [process.returncode for process in both] == [0, 0]
    assert printed[0] == printed[1]
    names = sorted(path.name for path in Path(printed[0]).iterdir() if path.name != ".lock")
    assert names == ["test-00000.parquet", "train-00000.parquet", "val-00000.parquet"]
    local = compact(render_shard(make_config(), "val", 0))
    remote = read_shard(Path(printed[0]) / "val-00000.parquet", local)
    assert all(torch.equal(local[name], remote[name]) for name in local)


def test_scenes_are_square(make_config: MakeConfig) -> None:
    with pytest.raises(ValueError, match=r"image_size: must be one number for scenes, got \[64, 32\]"):
        make_config(image_size=(64, 32))
