"""From a config to a data set in memory."""

from __future__ import annotations

from pathlib import Path
from typing import Literal

import torch

from faar_ray.config.paths import folder_of, is_remote
from faar_ray.config.trial import DataConfig
from faar_ray.data.dense import DenseDataset
from faar_ray.data.shards.scene_cache import read_scenes, split_images
from faar_ray.data.shards.shard_store import SPLITS, download_shards, missing_shards
from faar_ray.errors import ConfigError, DataError, StorageError
from faar_ray.tasks import CHANNELS

Split = Literal["train", "val", "test"]
ROOT = "data.root"

LOADABLE = ("scenes",)


def dataset_channels(name: str) -> dict[str, int]:
    """Output channels that each task of a data set needs.

    Raises:
        DataError: no such data set here.
    """
    if name not in LOADABLE:
        raise DataError(f"data.name: must be one of {', '.join(LOADABLE)}, got {name!r}")
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


def check_root(config: DataConfig) -> None:
    """Refuse a URI that lacks shards: every machine of a cluster would make them for itself.

    Raises:
        ConfigError: naming `data.root`, and the command that puts them there.
    """
    if not config.root or not is_remote(config.root):
        return
    try:
        missing = missing_shards(config, config.root, ROOT)
    except StorageError as fault:
        raise ConfigError(str(fault)) from None
    if missing:
        more = f" and {len(missing) - 1} more" if len(missing) > 1 else ""
        raise ConfigError(
            f"{ROOT}: {config.root} has no {missing[0]}{more}; this puts them there: python -m faar_ray.data pack "
            f"{config.name} {pack_options(config)} --out {config.root}"
        )


def pack_options(config: DataConfig) -> str:
    """What `python -m faar_ray.data pack` needs to make at least the shards of a config."""
    images = max(split_images(config, split) for split in SPLITS)
    return f"--domain {config.domain} --size {config.image_size} --seed {config.seed} --images {images}"


def load_dataset(config: DataConfig, split: Split, *, cache_dir: Path | None = None) -> DenseDataset:
    """The images of a split with the labels of `config.tasks`; scenes are made on first use and where damaged.

    Args:
        config: says which; its `root` is a folder that serves as the cache, or a URI that the cache is filled from.
        split: train, val or test.
        cache_dir: instead of all these.

    Raises:
        DataError: unknown data set or task, or a cache that cannot be written.
        StorageError: a URI that cannot be read.
    """
    check_labels(config)
    names = ("image", *config.tasks)
    if cache_dir is None:
        cache_dir = folder_of(config.root)
        if config.root and is_remote(config.root):
            download_shards(config, config.root, ROOT)
    shards = read_scenes(config, split, names, cache_dir)
    wanted = split_images(config, split)
    stored = {name: torch.cat([shard[name] for shard in shards])[:wanted].clone() for name in names}
    return DenseDataset(stored, tuple(config.tasks))
