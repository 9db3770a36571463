"""Which published images are train, val and test of a search."""

from __future__ import annotations

from collections.abc import Mapping

import torch

from faar_ray.config.data_section import DataConfig
from faar_ray.errors import ConfigError
from faar_ray.seeding import private


def split_rows(config: DataConfig, split: str, published: Mapping[str, int]) -> tuple[str, list[int]]:
    """The published split that a split is taken from, and its rows there, in the published order.

    A data set with a published test split is taken as it is. Of others the published val is the test split; val is it
    too (`protocol: papers`), or a part of train that `data.seed` draws (`protocol: search`), so that nothing is chosen
    on what is reported.

    Args:
        config: protocol, share of val, seed.
        split: train, val or test.
        published: number of images by published split.

    Raises:
        ConfigError: too few images for a val of that share.
    """
    if "test" in published:
        return split, list(range(published[split]))
    if split == "test" or (split == "val" and config.protocol == "papers"):
        return "val", list(range(published["val"]))
    if config.protocol == "papers":
        return "train", list(range(published["train"]))

    count = published["train"]
    held_out = round(count * config.val_share)
    if not 0 < held_out < count:
        raise ConfigError(
            f"data.val_share: {config.val_share:g} of {count} training images leaves {count - held_out} to train on "
            f"and {held_out} for val; must leave both"
        )
    drawn = torch.randperm(count, generator=private("val", config.seed)).tolist()
    chosen = set(drawn[:held_out])
    return "train", [row for row in range(count) if (row in chosen) == (split == "val")]
