"""A ConvNeXt block over channels-last tokens, its MLP as two linears that adapters can stand around.

Axes: S streams in (1 until the first task-specific layer, then K), B batch, C channels, H W space.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from timm.models.convnext import ConvNeXtBlock
from torch import Tensor, nn

from faar_ray.models.channels_last import TokenBlock, as_linear, by_image


class MlpBlock(TokenBlock):
    """Depthwise convolution, norm, fc1, activation (and ConvNeXt v2's response norm), fc2, layer scale, skip.

    timm's MLP is of linears over channels-last tokens, or of 1x1 convolutions over images: `of_images`.
    """

    def __init__(self, block: ConvNeXtBlock) -> None:
        super().__init__()
        mlp: Any = block.mlp
        self.of_images: bool = block.use_conv_mlp
        self.conv_dw = nn.Sequential(block.conv_dw)
        self.norm = block.norm
        self.fc1: nn.Module = as_linear(mlp.fc1) if self.of_images else mlp.fc1
        self.act: nn.Module = mlp.act
        self.grn: nn.Module = getattr(mlp, "grn", nn.Identity())
        self.fc2: nn.Module = as_linear(mlp.fc2) if self.of_images else mlp.fc2
        self.gamma = block.gamma
        self.drop_path = block.drop_path

    def run(self, x_1BHWC: Tensor, apply: Callable[[str, nn.Module, Tensor], Tensor]) -> Tensor:
        """(1, B, H, W, C) -> (S, B, H, W, C).

        Args:
            x_1BHWC: the one stream.
            apply: (layer, its module, streams) -> streams.
        """
        y = self._on(self.norm, by_image(self.conv_dw, x_1BHWC))
        y = self.act(apply("fc1", self.fc1, y))
        y = apply("fc2", self.fc2, self._on(self.grn, y))
        if self.gamma is not None:
            y = y * self.gamma
        kept: Tensor = self.drop_path(y.flatten(0, 1)).view_as(y)
        return kept + x_1BHWC

    def _on(self, module: nn.Module, x_SBHWC: Tensor) -> Tensor:
        """A module of timm's, which takes (B, C, H, W) or (B, H, W, C), over all streams in one batch."""
        if type(module) is nn.Identity:
            return x_SBHWC
        if self.of_images:
            return by_image(module, x_SBHWC)
        out: Tensor = module(x_SBHWC.flatten(0, 1)).view_as(x_SBHWC)
        return out
