"""Shards in object storage: uploaded once, downloaded by machines with empty caches. moto's server stands in for S3."""

from __future__ import annotations

import shlex
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import pytest
import torch

from faar_ray.config.trial import DataConfig
from faar_ray.data import check_root
from faar_ray.data.__main__ import main
from faar_ray.data.datasets import SPLITS
from faar_ray.data.scenes import scene_shards
from faar_ray.data.scenes.scene_shards import make_shards, shard_paths
from faar_ray.data.shards.shard_store import download_shards, missing_shards, upload_shards
from faar_ray.errors import ConfigError, DataError, StorageError
from faar_ray.storage.object_store import ObjectStore

from ..conftest import MakeConfig, in_memory, rooted

KEY = "data.root"


@pytest.fixture
def config(make_config: MakeConfig, cache: Path, monkeypatch: pytest.MonkeyPatch) -> DataConfig:
    """Of data that this machine has in its cache: two training shards, one of each other split."""
    monkeypatch.setenv("FAAR_RAY_CACHE", str(cache))
    config = make_config(train_images=61)
    for split in SPLITS:
        make_shards(config, split)
    return config


@pytest.fixture
def elsewhere(tmp_path: Path, config: DataConfig, monkeypatch: pytest.MonkeyPatch) -> pytest.MonkeyPatch:
    """Makes this another machine, which has no data and must not render any."""

    def render(*_: Any) -> None:
        raise AssertionError("rendered, not downloaded")

    monkeypatch.setattr(scene_shards, "render_shard", render)
    monkeypatch.setenv("FAAR_RAY_CACHE", str(tmp_path / "elsewhere"))
    return monkeypatch


@pytest.fixture
def store(s3: str, config: DataConfig) -> str:
    """Where the shards of `config` are."""
    upload_shards(config, s3, KEY)
    return s3


def test_every_shard_is_put_once(config: DataConfig, s3: str) -> None:
    progress: list[tuple[int, int]] = []
    upload_shards(config, s3, KEY, lambda number, total: progress.append((number, total)))
    assert progress == [(1, 4), (2, 4), (3, 4), (4, 4)]
    assert missing_shards(config, s3, KEY) == []
    upload_shards(config, s3, KEY, lambda number, total: progress.append((number, total)))
    assert len(progress) == 4


def test_another_machine_takes_what_it_lacks(
    config: DataConfig, store: str, cache: Path, elsewhere: pytest.MonkeyPatch
) -> None:
    for split in SPLITS:
        remote = in_memory(rooted(config, store), split)
        local = in_memory(rooted(config, cache), split)
        assert all(torch.equal(local.stored[name], remote.stored[name]) for name in local.stored)


def test_what_the_cache_has_is_not_downloaded_again(
    config: DataConfig, store: str, elsewhere: pytest.MonkeyPatch
) -> None:
    downloads: list[str] = []
    download = ObjectStore.download

    def counted(remote: ObjectStore, name: str, *rest: Any) -> None:
        downloads.append(name)
        download(remote, name, *rest)

    elsewhere.setattr(ObjectStore, "download", counted)
    with ThreadPoolExecutor(4) as pool:
        list(pool.map(lambda _: download_shards(config, store, KEY), range(4)))
    assert len(downloads) == len(set(downloads)) == 4
    shard_paths(config, "val")[0].unlink()
    download_shards(config, store, KEY)
    assert len(downloads) == 5 and downloads[4].endswith("val-00000.parquet")


def test_a_damaged_object_is_seen_and_made_anew(
    config: DataConfig, store: str, cache: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    name = shard_paths(config, "val")[0].relative_to(cache).as_posix()
    whole = ObjectStore(store).read(name)
    assert whole is not None
    ObjectStore(store).write(name, whole[: len(whole) // 2])
    monkeypatch.setenv("FAAR_RAY_CACHE", str(tmp_path / "elsewhere"))
    remote = in_memory(rooted(config, store), "val")
    assert torch.equal(remote.stored["image"], in_memory(rooted(config, cache), "val").stored["image"])


def test_missing_shards_are_refused_with_the_command_that_puts_them_there(
    config: DataConfig, s3: str, cache: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    with pytest.raises(ConfigError) as refused:
        check_root(rooted(config, s3))
    output = str(refused.value)
    assert output.startswith(f"data.root: {s3} has no scenes/") and "and 3 more" in output
    command = output.partition("python -m faar_ray.data ")[2]
    assert main(shlex.split(command)) == 0
    assert capsys.readouterr().out.strip() == s3
    check_root(rooted(config, s3))


def test_pack_and_check_take_a_uri(config: DataConfig, s3: str, capsys: pytest.CaptureFixture[str]) -> None:
    small = ["scenes", "--images", "60", "--size", str(config.image_size), "--out", s3]
    assert main(["check", *small]) == 2
    assert "3 shards are missing, first scenes/" in capsys.readouterr().err
    assert main(["pack", *small]) == 0
    assert main(["check", *small]) == 0
    assert capsys.readouterr().out.count("ok") == 3
    name = next(iter(ObjectStore(s3).files()))
    ObjectStore(s3).write(name, b"nothing")
    assert main(["check", *small]) == 2
    assert "1 of 3 shards are missing or damaged" in capsys.readouterr().err


@pytest.mark.parametrize("uri", ["s3://user:pass@bucket/x", "ftp://bucket", "s3://No_Bucket"])
def test_a_uri_of_another_kind_is_refused(uri: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["pack", "scenes", "--out", uri]) == 2
    assert capsys.readouterr().err.startswith("--out: must be ")


def test_a_bucket_that_is_not_there(config: DataConfig, s3: str) -> None:
    with pytest.raises(ConfigError, match=r"^data\.root: s3://nobody-s-bucket"):
        check_root(rooted(config, "s3://nobody-s-bucket"))
    with pytest.raises(StorageError, match=r"^data\.root: s3://nobody-s-bucket"):
        upload_shards(config, "s3://nobody-s-bucket", KEY)


def test_a_cache_that_cannot_be_written(config: DataConfig, store: str, elsewhere: pytest.MonkeyPatch, s3: str) -> None:
    elsewhere.setenv("FAAR_RAY_CACHE", "/proc/no")
    with pytest.raises(DataError, match="set FAAR_RAY_CACHE"):
        in_memory(rooted(config, store), "val")


def test_a_folder_as_root_holds_the_shards(config: DataConfig, cache: Path, elsewhere: pytest.MonkeyPatch) -> None:
    assert len(in_memory(rooted(config, cache), "train")) == 61
