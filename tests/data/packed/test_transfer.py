"""Packed shards in object storage. moto's server stands in for S3."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch

from faar_ray.config.trial import DataConfig, TrialConfig
from faar_ray.data import check_root, count_images, load_dataset, local_data
from faar_ray.data.packed.places import packed_uri
from faar_ray.data.packed.transfer import download_packed, upload_packed
from faar_ray.errors import ConfigError, DataError
from faar_ray.storage.object_store import ObjectStore
from faar_ray.storage.run_location import RunLocation
from faar_ray.train.trial_spec import TrialSpec

KEY = "data.root"


@pytest.fixture
def folder(packed: DataConfig, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("FAAR_RAY_CACHE", str(tmp_path / "cache"))
    assert packed.root is not None
    return Path(packed.root)


@pytest.fixture
def store(s3: str, folder: Path) -> str:
    upload_packed(folder, s3, KEY)
    return s3


def at(config: DataConfig, root: str) -> DataConfig:
    return config.model_copy(update={"root": root})


def test_every_shard_is_put_once(folder: Path, s3: str) -> None:
    progress: list[tuple[int, int]] = []
    upload_packed(folder, s3, KEY, lambda *numbers: progress.append(numbers))
    upload_packed(folder, s3, KEY, lambda *numbers: progress.append(numbers))
    assert progress == [(1, 3), (2, 3), (3, 3)]


def test_another_machine_reads_what_was_uploaded(packed: DataConfig, store: str) -> None:
    check_root(at(packed, store))
    assert count_images(at(packed, store), "train") == 60
    remote = load_dataset(local_data(at(packed, store)), "train")
    local = load_dataset(packed, "train")
    assert all(torch.equal(remote[7][name], local[7][name]) for name in remote[7])


def test_a_search_s_machines_take_what_only_its_driver_has(packed: DataConfig, s3: str, folder: Path) -> None:
    elsewhere = at(packed, "/not/on/this/machine")
    upload_packed(folder, packed_uri(elsewhere, s3), "storage.path")
    assert len(load_dataset(local_data(elsewhere, s3), "val")) == 10
    single = elsewhere.model_copy(update={"tasks": ("semseg",)})
    assert local_data(single, s3).root == local_data(elsewhere, s3).root
    assert local_data(packed, s3).root == packed.root


def test_a_uri_without_shards_names_the_command_that_packs(packed: DataConfig, s3: str) -> None:
    with pytest.raises(ConfigError, match=r"holds no packed shards; upload them with: python -m faar_ray\.data pack"):
        check_root(at(packed, s3))


def test_a_shard_that_was_altered_in_the_store_is_refused(packed: DataConfig, store: str) -> None:
    ObjectStore(store).write("val-00000.parquet", b"PAR1 and something else")
    with pytest.raises(DataError, match=r"val-00000\.parquet: sha256 differs"):
        download_packed(store, KEY)


def test_a_process_that_works_elsewhere_reads_the_folder_that_was_meant(
    packed: DataConfig, folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(folder.parent)
    relative = TrialConfig(data=at(packed, folder.name))
    plain = TrialSpec("t000-s0", relative, RunLocation(tmp_path / "run")).to_dict()
    monkeypatch.chdir(tmp_path / "..")
    spec = TrialSpec.from_dict(plain)
    assert spec.config == relative
    assert len(load_dataset(local_data(spec.config.data, spec.shards_uri, spec.data_root), "val")) == 10
    assert TrialSpec.from_dict(spec.to_dict()).data_root == str(folder)
