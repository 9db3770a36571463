"""From a config to a data set in memory."""

from __future__ import annotations

from pathlib import Path

from faar_ray.config.paths import is_remote
from faar_ray.config.registries import DATASETS
from faar_ray.config.trial import DataConfig
from faar_ray.data.datasets import SPLITS, Split, check_labels, open_split, read_columns
from faar_ray.data.dense import DenseDataset
from faar_ray.data.scenes.reader import ROOT, SceneReader
from faar_ray.data.shards.scene_cache import split_images
from faar_ray.data.shards.shard_store import missing_shards
from faar_ray.errors import ConfigError, StorageError


def check_root(config: DataConfig) -> None:
    """Refuse a URI that lacks shards: every machine of a cluster would make them for itself.

    Raises:
        ConfigError: naming `data.root`, and the command that puts them there.
    """
    if not config.root or not is_remote(config.root) or not DATASETS[config.name].sharded:
        return
    try:
        missing = missing_shards(config, config.root, ROOT)
    except StorageError as error:
        raise ConfigError(str(error)) from None
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
        config: says which.
        split: train, val or test.
        cache_dir: of `scenes`, instead of `config.root` and the cache of this machine.

    Raises:
        DataError: unknown data set or task, samples that do not fit, or a cache that cannot be written.
        StorageError: a URI that cannot be read.
    """
    check_labels(config)
    reader = open_split(config, split) if cache_dir is None else SceneReader(config, split, cache_dir)
    stored = read_columns(reader, ("image", *config.tasks), config.image_size)
    return DenseDataset(stored, tuple(config.tasks), reader.classes)
