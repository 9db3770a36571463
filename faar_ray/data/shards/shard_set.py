"""How the Parquet shards of a data set are named, made and checked: what `DatasetEntry.shards` gives."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol

from torch import Tensor

from faar_ray.config.registries import DATASETS, load_builder
from faar_ray.config.trial import DataConfig


class ShardPaths(Protocol):
    """Names shards."""

    def __call__(self, config: DataConfig, split: str, cache_dir: Path | None = None, /) -> list[Path]:
        """Paths of a split's shards in a cache (default: this machine's), whether or not they exist."""


class MakeShards(Protocol):
    """Makes shards."""

    def __call__(
        self,
        config: DataConfig,
        split: str,
        cache_dir: Path | None = None,
        on_shard: Callable[[Path], None] | None = None,
        /,
    ) -> list[Path]:
        """Make a split's missing shards, calling `on_shard` after each one; gives the paths of all.

        Raises:
            DataError: the cache cannot be written.
        """


@dataclass(frozen=True, slots=True)
class ShardSet:
    """The shards of one data set."""

    paths: ShardPaths
    make: MakeShards
    rows: int
    """Images in a shard."""
    columns: tuple[str, ...]
    """`image` and the tasks that a shard has labels for."""
    value_problems: Callable[[Mapping[str, Tensor]], list[str]]
    """What is wrong with the values of a shard's columns, as messages."""
    pack_options: Callable[[DataConfig], str]
    """Options of `python -m faar_ray.data pack` that make at least the shards of a config."""


def shards_of(name: str) -> ShardSet:
    """The shards of a data set that has some (`DATASETS[name].shards`)."""
    build = DATASETS[name].shards
    assert build is not None, f"{name} has no shards"
    shards: ShardSet = load_builder(build)()
    return shards
