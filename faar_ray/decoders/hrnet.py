"""The HRNet head (MTLoRA's): four 1x1 reductions, upsampling to the finest grid, one hidden 1x1 layer.

Axes: B batch, C channels, N outputs, H W space.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
import torch.nn.functional as F
from torch import Tensor, nn


class HRNetHead(nn.Module):
    """One task's head over a pyramid of four maps.

    On Swin-T with width 18: (192, 384, 768, 768) -> (18, 36, 72, 144) -> 270 -> 1080 -> N.
    """

    def __init__(self, in_channels: Sequence[int], out_channels: int, width: int, expansion: int = 4) -> None:
        super().__init__()
        reduced = [width * 2**i for i in range(len(in_channels))]
        joined = sum(reduced)
        pairs = zip(in_channels, reduced, strict=True)
        self.reductions = nn.ModuleList(nn.Conv2d(i, o, kernel_size=1, bias=False) for i, o in pairs)
        self.hidden = nn.Conv2d(joined, expansion * joined, kernel_size=1)
        self.norm = nn.BatchNorm2d(expansion * joined, momentum=0.1)
        self.output = nn.Conv2d(expansion * joined, out_channels, kernel_size=1)

    def forward(self, pyramid: Sequence[Tensor], size: tuple[int, int]) -> Tensor:
        """Maps (B, C_i, H_i, W_i), finest first -> (B, N, *size)."""
        return self.predict(self.reduce(pyramid), size)

    def reduce(self, pyramid: Sequence[Tensor]) -> list[Tensor]:
        """Maps (B, C_i, H_i, W_i) -> (B, width 2^i, H_i, W_i)."""
        return [reduction(x) for reduction, x in zip(self.reductions, pyramid, strict=True)]

    def predict(self, maps: Sequence[Tensor], size: tuple[int, int]) -> Tensor:
        """Reduced maps, finest first -> (B, N, *size)."""
        grid = maps[0].shape[-2:]
        upsampled = [maps[0], *(F.interpolate(x, size=grid, mode="bilinear") for x in maps[1:])]
        hidden = F.relu(self.norm(self.hidden(torch.cat(upsampled, dim=1))))
        return F.interpolate(self.output(hidden), size=size, mode="bilinear")
