"""The embedded data set as a reader: rendered rooms out of the cache's shards, made on first use."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path

import torch
from torch import Tensor

from faar_ray.config.paths import folder_of, is_remote
from faar_ray.config.trial import DataConfig
from faar_ray.data.scenes.object_table import CLASSES, PARTS
from faar_ray.data.shards.scene_cache import read_scenes, split_images
from faar_ray.data.shards.shard_store import download_shards

ROOT = "data.root"


class SceneReader:
    """A split of `scenes`.

    Args:
        config: says which; its `root` is a folder that serves as the cache, or a URI that the cache is filled from.
        split: train, val or test.
        cache_dir: instead of all these.
    """

    classes: Mapping[str, Sequence[str]] = {"semseg": CLASSES, "human_parts": PARTS}

    def __init__(self, config: DataConfig, split: str, cache_dir: Path | None = None) -> None:
        self.config, self.split, self.cache_dir = config, split, cache_dir

    def __len__(self) -> int:
        """Number of images that the config asks for."""
        return split_images(self.config, self.split)

    def sample(self, index: int, names: Sequence[str]) -> Mapping[str, Tensor]:
        """One image and its labels."""
        return {name: values[index] for name, values in self.columns(names).items()}

    def columns(self, names: Sequence[str]) -> Mapping[str, Tensor]:
        """All images and labels; missing shards are made, damaged ones are made again.

        Raises:
            DataError: a cache that cannot be written.
            StorageError: a URI that cannot be read.
        """
        cache = self.cache_dir
        if cache is None:
            cache = folder_of(self.config.root)
            if self.config.root and is_remote(self.config.root):
                download_shards(self.config, self.config.root, ROOT)
        shards = read_scenes(self.config, self.split, names, cache)
        return {name: torch.cat([shard[name] for shard in shards])[: len(self)].clone() for name in names}
