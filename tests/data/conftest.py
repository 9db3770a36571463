"""A small scenes data set, made once, and never in the user's own cache."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from faar_ray.config.trial import DataConfig
from faar_ray.data import DenseDataset, load_dataset
from faar_ray.data.datasets import Split

ALL_TASKS = ("semseg", "human_parts", "saliency", "normals", "depth", "edge")
MakeConfig = Callable[..., DataConfig]


def in_memory(config: DataConfig, split: Split) -> DenseDataset:
    """Scenes, whose columns can be compared."""
    data = load_dataset(config, split)
    assert isinstance(data, DenseDataset)
    return data


def rooted(config: DataConfig, root: str | Path) -> DataConfig:
    return config.model_copy(update={"root": str(root)})


@pytest.fixture(scope="session")
def cache(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("cache")


@pytest.fixture(scope="session")
def make_config() -> MakeConfig:
    def make(**changes: Any) -> DataConfig:
        small = {"tasks": ALL_TASKS, "image_size": 32, "train_images": 60, "val_images": 60, "test_images": 60}
        return DataConfig.model_validate(small | changes)

    return make


@pytest.fixture(scope="session")
def dataset(make_config: MakeConfig, cache: Path) -> DenseDataset:
    return in_memory(make_config(image_size=64, root=str(cache)), "train")
