"""From a config to a data set in memory."""

from __future__ import annotations

from pathlib import Path
from typing import Literal

import torch

from faar_ray.config import DataConfig
from faar_ray.data.dense import DenseDataset
from faar_ray.data.scene_cache import read_scenes, split_images
from faar_ray.data.slots import CLASSES, PARTS
from faar_ray.errors import DataError

Split = Literal["train", "val", "test"]

CHANNELS = {
    "scenes": {
        "semseg": len(CLASSES),
        "human_parts": len(PARTS),
        "saliency": 1,
        "normals": 3,
        "depth": 1,
        "edge": 1,
    }
}


def dataset_channels(name: str) -> dict[str, int]:
    """Output channels that each task of a data set needs.

    Raises:
        DataError: no such data set here.
    """
    if name not in CHANNELS:
        raise DataError(f"data.name: must be one of {', '.join(CHANNELS)}, got {name!r}")
    return dict(CHANNELS[name])


def check_labels(config: DataConfig) -> None:
    """Refuse a data set that cannot be loaded, or a task that it has no labels for.

    Raises:
        DataError: naming it.
    """
    tasks = dataset_channels(config.name)
    unknown = [task for task in config.tasks if task not in tasks]
    if unknown:
        raise DataError(f"data.tasks: {config.name} has {', '.join(tasks)}, got {', '.join(unknown)}")


def load_dataset(config: DataConfig, split: Split, *, cache_dir: Path | None = None) -> DenseDataset:
    """The images of a split with the labels of `config.tasks`; scenes are made on first use and where damaged.

    Raises:
        DataError: unknown data set or task, or a cache that cannot be written.
    """
    check_labels(config)
    names = ("image", *config.tasks)
    shards = read_scenes(config, split, names, cache_dir)
    wanted = split_images(config, split)
    stored = {name: torch.cat([shard[name] for shard in shards])[:wanted].clone() for name in names}
    return DenseDataset(stored, tuple(config.tasks))
