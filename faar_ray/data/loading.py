"""From a config to a split that can be read."""

from __future__ import annotations

from faar_ray.config.paths import is_remote
from faar_ray.config.registries import DATASETS
from faar_ray.config.trial import DataConfig
from faar_ray.data.datasets import ColumnReader, Split, SplitData, open_split
from faar_ray.data.dense import DenseDataset
from faar_ray.data.samples import SampleDataset
from faar_ray.data.shards.shard_set import shards_of
from faar_ray.data.shards.shard_store import missing_shards
from faar_ray.errors import ConfigError, StorageError
from faar_ray.tasks import tasks_of

ROOT = "data.root"


def check_root(config: DataConfig) -> None:
    """Check that `data.root` is given where it is needed, and that a URI has all shards.

    Without this check every machine of a cluster would make the missing shards for itself.

    Raises:
        ConfigError: naming `data.root`, and the command that uploads the shards.
    """
    entry = DATASETS[config.name]
    if entry.needs_root and config.root is None:
        raise ConfigError(f"{ROOT}: must name the folder of {config.name}, got null")
    if not config.root or not is_remote(config.root) or entry.shards is None:
        return

    try:
        missing = missing_shards(config, config.root, ROOT)
    except StorageError as error:
        raise ConfigError(str(error)) from None

    if missing:
        more = f" and {len(missing) - 1} more" if len(missing) > 1 else ""
        options = shards_of(config.name).pack_options(config)
        raise ConfigError(
            f"{ROOT}: {config.root} has no {missing[0]}{more}; upload them with: "
            f"python -m faar_ray.data pack {config.name} {options} --out {config.root}"
        )


def load_dataset(config: DataConfig, split: Split) -> SplitData:
    """The images of a split with the labels of `config.tasks`.

    Raises:
        ConfigError: the data set has no reader, or no labels for a task.
        DataError: samples that do not fit, or a cache that cannot be written.
        StorageError: a URI that cannot be read.
    """
    reader, tasks = open_split(config, split), tasks_of(config)
    if isinstance(reader, ColumnReader):
        return DenseDataset(reader.columns(("image", *tasks)), tasks)
    return SampleDataset(reader, config)
