"""The reader of `scenes`: rendered rooms from the shards of a cache."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import torch
from torch import Tensor

from faar_ray.config.paths import folder_of, is_remote
from faar_ray.config.trial import DataConfig
from faar_ray.data.scenes.scene_shards import read_scenes, split_images
from faar_ray.data.shards.shard_store import download_shards


class SceneReader:
    """A split of `scenes`.

    Args:
        config: domain, size, seed and number of the images. Its `root` is a folder, used as the cache, or a URI, from
            which missing shards are downloaded into the cache.
        split: train, val or test.
    """

    def __init__(self, config: DataConfig, split: str) -> None:
        self.config, self.split = config, split

    def __len__(self) -> int:
        """Number of images."""
        return split_images(self.config, self.split)

    def sample(self, index: int, names: Sequence[str]) -> Mapping[str, Tensor]:
        """One image and its labels."""
        return {name: values[index] for name, values in self.columns(names).items()}

    def columns(self, names: Sequence[str]) -> Mapping[str, Tensor]:
        """All images and labels; missing and damaged shards are rendered.

        Raises:
            DataError: a cache that cannot be written.
            StorageError: a URI that cannot be read.
        """
        if self.config.root and is_remote(self.config.root):
            download_shards(self.config, self.config.root, "data.root")
        shards = read_scenes(self.config, self.split, names, folder_of(self.config.root))
        return {name: torch.cat([shard[name] for shard in shards])[: len(self)].clone() for name in names}
