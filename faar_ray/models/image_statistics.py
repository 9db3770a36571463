"""Mean and deviation of images as backbones were trained to see them; data sets give images in ImageNet's.

Axes: B batch, C or 3 channels, H W space.
"""

from __future__ import annotations

from collections.abc import Sequence

import timm
import torch
from timm.data.constants import (
    IMAGENET_DEFAULT_MEAN,
    IMAGENET_DEFAULT_STD,
    IMAGENET_INCEPTION_MEAN,
    IMAGENET_INCEPTION_STD,
    OPENAI_CLIP_MEAN,
    OPENAI_CLIP_STD,
)
from torch import Tensor, nn

from faar_ray.config.trial import BackboneConfig

Statistics = tuple[Sequence[float], Sequence[float]]
"""Mean and standard deviation of red, green and blue, of levels from 0 to 1."""
IMAGENET: Statistics = (IMAGENET_DEFAULT_MEAN, IMAGENET_DEFAULT_STD)
STATISTICS: dict[str, Statistics] = {
    "imagenet": IMAGENET,
    "inception": (IMAGENET_INCEPTION_MEAN, IMAGENET_INCEPTION_STD),
    "clip": (OPENAI_CLIP_MEAN, OPENAI_CLIP_STD),
    "unit": ((0.0, 0.0, 0.0), (1.0, 1.0, 1.0)),
}
"""By `backbone.statistics`."""


def statistics_of(config: BackboneConfig) -> Statistics:
    """Those of the config; `auto`: those of timm's weights of that name, ImageNet's for what timm has none of."""
    if config.statistics != "auto":
        return STATISTICS[config.statistics]
    card = timm.models.get_pretrained_cfg(config.name) if timm.is_model(config.name) else None
    return (card.mean, card.std) if card is not None else IMAGENET


def restandardise(statistics: Statistics) -> nn.Module:
    """From images in ImageNet's statistics to others; nothing at all where they are ImageNet's."""
    mean, std = map(tuple, statistics)
    return nn.Identity() if (mean, std) == IMAGENET else Restandardise(mean, std)


class Restandardise(nn.Module):
    """(image in ImageNet's statistics) -> the same image in others, (B, 3, H, W); no weights, nothing in files."""

    scale: Tensor
    shift: Tensor

    def __init__(self, mean: Sequence[float], std: Sequence[float]) -> None:
        super().__init__()
        theirs_C, spread_C, mean_C, std_C = (
            torch.tensor(values, dtype=torch.float64)[:, None, None] for values in (*IMAGENET, mean, std)
        )
        self.register_buffer("scale", (spread_C / std_C).float(), persistent=False)
        self.register_buffer("shift", ((theirs_C - mean_C) / std_C).float(), persistent=False)

    def forward(self, image_B3HW: Tensor) -> Tensor:
        """(B, 3, H, W) -> (B, 3, H, W)."""
        return torch.addcmul(self.shift, image_B3HW, self.scale)
