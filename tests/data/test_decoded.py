"""Decoded samples in a mapped file are those of the reader, made once, and never of other data."""

from __future__ import annotations

import logging
import os
from collections.abc import Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor

from faar_ray.config.trial import DataConfig, TrialConfig
from faar_ray.data import decoded as module
from faar_ray.data import load_dataset, open_split
from faar_ray.data.decoded import DecodedReader, decoded
from faar_ray.data.packed.write import PackOptions, pack
from faar_ray.errors import DataError
from faar_ray.storage.run_location import RunLocation
from faar_ray.train.fit import fit
from faar_ray.train.trial_spec import TrialSpec

from .photographs.conftest import data_config, write_folder
from .photographs.trees import nyud_tree

TASKS = ("semseg", "normals", "depth", "edge")


@pytest.fixture(autouse=True)
def cache_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("FAAR_RAY_CACHE", str(tmp_path / "cache"))
    module.say_once.cache_clear()
    return tmp_path / "cache" / "decoded"


@pytest.fixture
def config(tmp_path: Path) -> DataConfig:
    return nyud(nyud_tree(tmp_path / "nyud", train=9))


def nyud(root: Path, **changes: Any) -> DataConfig:
    values = {"name": "nyud", "root": str(root), "tasks": TASKS, "protocol": "papers", "image_size": [32, 48]}
    augment = {"rotation": 20.0, "scale": [0.75, 1.25], "colour": 0.3}
    return DataConfig.model_validate({**values, "loader_workers": 0, "augment": augment, **changes})


def kept(folder: Path) -> list[str]:
    return sorted(path.name for path in folder.glob("*.arrow"))


def same(one: Tensor | None, other: Tensor | None) -> bool:
    if one is None or other is None:
        return one is other
    return (
        one.dtype == other.dtype and one.shape == other.shape and torch.equal(one.nan_to_num(-9), other.nan_to_num(-9))
    )


@pytest.mark.parametrize("kind", ["files", "packed", "compact", "folder"])
def test_samples_are_the_readers_bit_for_bit(kind: str, config: DataConfig, tmp_path: Path) -> None:
    if kind in ("packed", "compact"):
        pack(config, tmp_path / "packed", PackOptions(compact=kind == "compact"), processes=0)
        config = config.model_copy(update={"root": str(tmp_path / "packed")})
    if kind == "folder":
        config = data_config(write_folder(tmp_path / "own"), protocol="papers")
    reader = open_split(config, "train")
    mapped = decoded(reader, config, "train")
    assert isinstance(mapped, DecodedReader)
    assert len(mapped) == len(reader) > 5
    for index in range(len(reader)):
        ours, theirs = (of.sample(index, ("image", *config.tasks)) for of in (mapped, reader))
        assert [name for name in theirs if not same(ours[name], theirs[name])] == []


@pytest.mark.parametrize("processes", [0, 1])
def test_batches_are_the_same_with_and_without(config: DataConfig, cache_folder: Path, processes: int) -> None:
    passes = []
    for cached in (True, True, False):
        data = load_dataset(config.model_copy(update={"loader_workers": processes}), "train", cached=cached)
        passes.append(list(data.batches(batch_size=4, seed=1, epoch=2, train=True)))
        data.close()
    assert len(kept(cache_folder)) == 1
    for one, two, without in zip(*passes, strict=True):
        assert all(torch.equal(one[name], without[name]) and torch.equal(two[name], without[name]) for name in without)


def test_a_trial_learns_the_same_with_and_without(config: DataConfig, cache_folder: Path, tmp_path: Path) -> None:
    learned = []
    for cache in ("auto", "never"):
        trial = TrialConfig.resolve(
            {
                "data": {**config.model_dump(mode="json"), "tasks": ["semseg", "normals"], "cache": cache},
                "backbone": {"pretrained": False},
                "ranks": {"init_rank": 4},
                "optim": {"epochs": 2, "batch_size": 4, "warmup_steps": 1},
            },
            **{"data.image_size": [32, 64]},
        )
        *_, last = fit(TrialSpec("t", trial, RunLocation(tmp_path / cache)))
        learned.append({k: v for k, v in last.metrics.items() if k.startswith(("val/", "train/loss"))})
        assert len(kept(cache_folder)) == 2
    assert learned[0] == learned[1]


def test_tensors_lie_in_the_file_that_all_processes_map(config: DataConfig) -> None:
    mapped = decoded(open_split(config, "train"), config, "train")
    assert isinstance(mapped, DecodedReader)
    values = mapped.sample(3, ("normals",))["normals"]
    assert values is not None and values.data_ptr() % values.element_size() == 0
    places = [line.split() for line in Path("/proc/self/maps").read_text().splitlines() if str(mapped.path) in line]
    bounds = [[int(end, 16) for end in fields[0].split("-")] for fields in places]
    assert any(start <= values.data_ptr() < end for start, end in bounds)
    assert all("w" not in fields[1] for fields in places)


def test_other_data_are_kept_apart(config: DataConfig, cache_folder: Path) -> None:
    def files_after(config: DataConfig, split: Any = "train") -> int:
        assert isinstance(decoded(open_split(config, split), config, split), DecodedReader)
        return len(kept(cache_folder))

    assert files_after(config) == 1
    assert files_after(config.model_copy(update={"image_size": 64, "loader_workers": 1})) == 1
    assert files_after(config, "val") == 2
    assert files_after(config.model_copy(update={"tasks": ("semseg",)})) == 3
    assert files_after(config.model_copy(update={"protocol": "search"})) == 4

    label = Path(config.root or "") / "depth" / "train0002.npy"
    status = label.stat()
    os.utime(label, ns=(status.st_atime_ns, status.st_mtime_ns + 10**9))
    assert files_after(config) == 5


def test_repacked_shards_are_other_data(config: DataConfig, cache_folder: Path, tmp_path: Path) -> None:
    for compact in (False, True):
        pack(config, tmp_path / str(compact), PackOptions(compact=compact), processes=0)
        (tmp_path / "root").unlink(missing_ok=True)
        (tmp_path / "root").symlink_to(tmp_path / str(compact))
        packed = config.model_copy(update={"root": str(tmp_path / "root")})
        decoded(open_split(packed, "train"), packed, "train")
    assert len(kept(cache_folder)) == 2


def test_never_and_data_that_do_not_fit_are_decoded_by_each_trial(
    config: DataConfig, cache_folder: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    reader = open_split(config, "train")
    assert decoded(reader, config.model_copy(update={"cache": "never"}), "train") is reader
    monkeypatch.setattr(module, "most_bytes", lambda folder: 100_000)
    with caplog.at_level(logging.INFO):
        for _ in range(2):
            assert decoded(reader, config, "train") is reader
    (told,) = caplog.messages
    assert told.startswith("data.cache: train is decoded by each trial: it takes 0.0 GiB, more than a third of")
    assert kept(cache_folder) == []


class Counted:
    """A reader that counts what is asked of it."""

    def __init__(self, fault: Exception | None = None) -> None:
        self.asked, self.fault = 0, fault

    def __len__(self) -> int:
        return 20

    def version(self) -> str:
        return "1"

    def sample(self, index: int, names: Sequence[str]) -> Mapping[str, Tensor | None]:
        self.asked += 1
        if self.fault is not None and self.asked == 15:
            raise self.fault
        return {name: torch.full((1, 4, 5), index, dtype=torch.uint8) if index % 2 else None for name in names}


def test_several_trials_at_once_make_it_once(config: DataConfig, cache_folder: Path) -> None:
    readers = [Counted() for _ in range(4)]
    with ThreadPoolExecutor(4) as pool:
        mapped = list(pool.map(lambda reader: decoded(reader, config, "train"), readers))
    assert {type(one) for one in mapped} == {DecodedReader}
    assert sorted(reader.asked for reader in readers) == [0, 0, 0, 28]
    assert len(kept(cache_folder)) == 1


@pytest.mark.parametrize("fault", [DataError("photo.jpg: is damaged"), OSError(28, "No space left on device")])
def test_what_was_cut_off_is_not_kept(
    config: DataConfig, cache_folder: Path, fault: Exception, caplog: pytest.LogCaptureFixture
) -> None:
    reader = Counted(fault)
    if isinstance(fault, DataError):
        with pytest.raises(DataError, match=r"photo\.jpg: is damaged"):
            decoded(reader, config, "train")
    else:
        with caplog.at_level(logging.INFO):
            assert decoded(reader, config, "train") is reader
        assert "cannot be written (No space left on device)" in caplog.text
    assert kept(cache_folder) == []
    assert list(cache_folder.glob(".*.tmp")) == []


def test_a_reader_that_cannot_tell_its_version_is_read_itself(config: DataConfig, cache_folder: Path) -> None:
    class Plain:
        def __len__(self) -> int:
            return 3

        def sample(self, index: int, names: Sequence[str]) -> Mapping[str, Tensor | None]:
            return {}

    reader = Plain()
    assert decoded(reader, config, "train") is reader
    assert kept(cache_folder) == []
