"""Convolutional networks over tokens that lie channels-last, so that what adapts a linear adapts a 1x1 convolution.

What EfficientNet, MobileNet and ConvNeXt share.

Axes: T tasks, S streams in (1 until the first task-specific layer, then K), K streams out (the shared one first, if
it goes on, then T), B batch, C channels, H W space.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor, nn

from faar_ray.models.task_streams import TaskStreams

LAYERS = ("fc1", "fc2")
"""Expansion and projection."""


class TokenBlock(nn.Module, ABC):
    """A block whose expansion and projection are linears."""

    @abstractmethod
    def run(self, x_1BHWC: Tensor, apply: Callable[[str, nn.Module, Tensor], Tensor]) -> Tensor:
        """(1, B, H, W, C) -> (S, B, H', W', C').

        Args:
            x_1BHWC: the one stream.
            apply: (layer, its module, streams) -> streams.
        """

    def forward(self, x_BHWC: Tensor) -> Tensor:
        """(B, H, W, C) -> (B, H', W', C')."""
        return self.run(x_BHWC[None], lambda _, linear, x: linear(x[0])[None])[0]


class ConvTaskBlock(TaskStreams):
    """A `TokenBlock` with a stream for each task; all streams pass its frozen parts in one batch."""

    ORDER = LAYERS

    def forward(self, x_BHWC: Tensor) -> tuple[Tensor | None, Tensor]:
        """(B, H, W, C) -> the shared stream (B, H', W', C') or None, and the task streams (T, B, H', W', C')."""
        return self.parted(self.block.run(x_BHWC[None], lambda layer, linear, x: self.linear(layer, linear, x, RASTER)))


class Raster:
    """Tokens that lie as the pixels of an image: (..., H, W, C)."""

    def image(self, x: Tensor) -> Tensor:
        """(..., H, W, C) -> (..., C, H, W)."""
        return x.movedim(-1, -3)

    def tokens(self, x: Tensor) -> Tensor:
        """(..., C, H, W) -> (..., H, W, C)."""
        return x.movedim(-3, -1)


RASTER = Raster()


class StagedNet(nn.Module):
    """Stem and four stages."""

    patch_embed: nn.Module
    layers: Any
    """Stages, each with `downsample` (over streams) and `blocks`."""

    def stem(self, image_B3HW: Tensor) -> Tensor:
        """(B, 3, H, W) -> (B, H', W', C)."""
        x: Tensor = self.patch_embed(image_B3HW.contiguous(memory_format=torch.channels_last))
        return x.permute(0, 2, 3, 1)

    def forward_features_list(self, image_B3HW: Tensor) -> list[Tensor]:
        """The four maps (B, C, H, W) at strides 4, 8, 16, 32 where no block is task-specific."""
        x, maps = self.stem(image_B3HW), []
        for stage in self.layers:
            x = stage.downsample(x[None])[0]
            for block in stage.blocks:
                x = block(x)
            maps.append(x.permute(0, 3, 1, 2))
        return maps


def as_linear(conv: nn.Conv2d) -> nn.Linear:
    """A 1x1 convolution as a linear; draws no random numbers."""
    linear = nn.Linear(conv.in_channels, conv.out_channels, bias=conv.bias is not None, device="meta")
    linear.weight = nn.Parameter(conv.weight.detach().flatten(1))
    if conv.bias is not None:
        linear.bias = nn.Parameter(conv.bias.detach())
    return linear


def by_image(module: nn.Module, x_SBHWC: Tensor) -> Tensor:
    """A module that takes images, over all streams in one batch: (S, B, H, W, C) -> (S, B, H', W', C')."""
    if isinstance(module, nn.Sequential) and not len(module):
        return x_SBHWC
    y: Tensor = module(x_SBHWC.flatten(0, 1).permute(0, 3, 1, 2))
    grid: Tensor = y.permute(0, 2, 3, 1).unflatten(0, x_SBHWC.shape[:2])
    return grid


def run_blocks(blocks: nn.ModuleList, x_BHWC: Tensor) -> tuple[Tensor | None, Tensor]:
    """All blocks of a stage: the shared stream (None where it ends), and those of the tasks (or the shared one alone).

    A block behind the task-specific one has nothing that could be task-specific; all streams pass it in one batch.
    """
    shared: Tensor | None = x_BHWC
    streams: Tensor | None = None
    for block in blocks:
        if isinstance(block, ConvTaskBlock):
            shared, streams = block(shared)
        elif streams is None:
            shared = block(shared)
        else:
            together = streams if shared is None else torch.cat([shared[None], streams])
            out = block(together.flatten(0, 1)).unflatten(0, together.shape[:2])
            shared, streams = (None, out) if shared is None else (out[0], out[1:])
    if streams is None:
        assert shared is not None
        streams = shared[None]
    return shared, streams
