"""What a data set's files and code are: a reference of other data is not taken from the cache."""

from __future__ import annotations

import importlib
import os
from collections.abc import Callable, Iterator
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from faar_ray.config.registries import DATASETS
from faar_ray.config.trial import DataConfig
from faar_ray.data.fingerprint import fingerprint
from faar_ray.data.packed.write import PackOptions, pack
from faar_ray.records import TrialResult
from faar_ray.tune.run.references import References
from faar_ray.tune.space.space import SearchSpace

from ..tune.conftest import TINY
from .photographs.conftest import data_config, write_folder


@pytest.fixture
def shipped() -> Iterator[None]:
    """What a test registers goes again."""
    before = dict(DATASETS)
    yield
    DATASETS.clear()
    DATASETS.update(before)


def relabel(root: Path) -> None:
    Image.fromarray(np.full((24, 32), 7, np.uint16)).save(root / "rooms" / "0003.png")


def touch(root: Path) -> None:
    os.utime(root / "images" / "0003.jpg", ns=(1, 1))


def lose(root: Path) -> None:
    (root / "heat" / "0001.npy").unlink()


def describe_otherwise(root: Path) -> None:
    (root / "dataset.yaml").write_text(
        (root / "dataset.yaml").read_text() + "shares: {train: 0.5, val: 0.3, test: 0.2}\n"
    )


@pytest.mark.parametrize("change", [relabel, touch, lose, describe_otherwise])
def test_a_change_of_a_folder_is_seen_and_nothing_else(tmp_path: Path, change: Callable[[Path], None]) -> None:
    config = data_config(write_folder(tmp_path / "own"))
    before = fingerprint(config)
    assert before == fingerprint(config) != ""
    change(tmp_path / "own")
    assert fingerprint(config) != before


def test_a_reference_of_other_labels_is_trained_anew(tmp_path: Path) -> None:
    root = write_folder(tmp_path / "own")
    data = {"name": "folder", "root": str(root), "tasks": ["rooms", "marked"], "image_size": 32}
    raw = {**TINY, "base": {**TINY["base"], "data": data}, "references": "auto"}
    raw["objectives"] = [{"name": "delta_m", "goal": "maximize"}]
    space = SearchSpace.model_validate(raw)

    def missing() -> list[str]:
        return [job.trial_id for job in References(space, cache=tmp_path / "cache").jobs()]

    first = References(space, cache=tmp_path / "cache")
    for job in first.jobs():
        metrics = {f"{split}/{task}/miou": 40.0 for split in ("val", "test") for task in job.config.data.tasks}
        params = {"data.tasks": job.config.data.tasks[0]}
        first.keep(job, TrialResult(job.trial_id, "c", 0, "reference", "COMPLETE", params, metrics, 1.0, 1), {})
    assert missing() == []
    relabel(root)
    assert missing() == ["ref-rooms", "ref-marked"]


def test_packed_shards_are_known_by_what_was_packed(tmp_path: Path) -> None:
    config = data_config(write_folder(tmp_path / "own"))
    for name in ("a", "b"):
        pack(config, tmp_path / name, PackOptions(), processes=0)
    relabel(tmp_path / "own")
    pack(config, tmp_path / "c", PackOptions(), processes=0)
    a, b, c = (fingerprint(data_config(tmp_path / name)) for name in "abc")
    assert a == b != c


def test_the_code_of_a_module_counts(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, shipped: None) -> None:
    monkeypatch.syspath_prepend(tmp_path)
    body = "from faar_ray.data import register\nregister('counted', None, tasks={'a': 'depth'})\n"
    (tmp_path / "counted_module.py").write_text(body)
    importlib.invalidate_caches()
    config = DataConfig.model_validate({"module": "counted_module", "name": "counted"})
    before = fingerprint(config)
    (tmp_path / "counted_module.py").write_text(body + "# another\n")
    assert fingerprint(config) != before != ""


def test_scenes_depend_on_their_config_alone() -> None:
    assert fingerprint(DataConfig()) == ""
