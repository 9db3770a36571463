"""The HRNet head (MTLoRA's): four 1x1 reductions, upsampling to the finest grid, one hidden 1x1 layer.

Axes: B batch, C channels, N outputs, H W space.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from faar_ray.decoders.batch_norm import BatchNorm
from faar_ray.decoders.upsample import upsampled


class HRNetHead(nn.Module):
    """One task's head over a pyramid of four maps.

    On Swin-T with width 18: (192, 384, 768, 768) -> (18, 36, 72, 144) -> 270 -> 1080 -> N.
    """

    def __init__(
        self, in_channels: Sequence[int], out_channels: int, width: int, expansion: int = 4, *, own_hidden: bool = True
    ) -> None:
        super().__init__()
        reduced = [width * 2**i for i in range(len(in_channels))]
        joined = sum(reduced)
        pairs = zip(in_channels, reduced, strict=True)
        self.reductions = nn.ModuleList(nn.Conv2d(i, o, kernel_size=1, bias=False) for i, o in pairs)
        hidden = nn.Conv2d(joined, expansion * joined, kernel_size=1)
        self.hidden: nn.Conv2d | BiasOnly = hidden if own_hidden else BiasOnly(hidden)
        self.norm = BatchNorm(expansion * joined, momentum=0.1)
        self.output = nn.Conv2d(expansion * joined, out_channels, kernel_size=1)

    def forward(self, pyramid: Sequence[Tensor], size: tuple[int, int]) -> Tensor:
        """Maps (B, C_i, H_i, W_i), finest first -> (B, N, *size)."""
        return self.predict(self.reduce(pyramid), size)

    def reduce(self, pyramid: Sequence[Tensor]) -> list[Tensor]:
        """Maps (B, C_i, H_i, W_i) -> (B, width 2^i, H_i, W_i)."""
        return [reduction(x) for reduction, x in zip(self.reductions, pyramid, strict=True)]

    def predict(self, maps: Sequence[Tensor], size: tuple[int, int], hidden_OI: Tensor | None = None) -> Tensor:
        """Reduced maps, finest first -> (B, N, *size); `hidden_OI` is given where the head has no weight of its own."""
        grid = (maps[0].shape[-2], maps[0].shape[-1])
        joined = torch.cat([upsampled(x, grid) for x in maps], dim=1)
        weight_OI = self.hidden.weight.flatten(1) if isinstance(self.hidden, nn.Conv2d) else hidden_OI
        if weight_OI is None:
            raise TypeError("this head has no hidden weight of its own: give hidden_OI")
        hidden = self.norm(_by_token(weight_OI, self.hidden.bias, joined)).relu_()
        return upsampled(_by_token(self.output.weight.flatten(1), self.output.bias, hidden), size)


class BiasOnly(nn.Module):
    """The hidden layer of a head whose weight comes from elsewhere."""

    def __init__(self, like: nn.Conv2d) -> None:
        super().__init__()
        assert like.bias is not None
        self.bias = like.bias


def _by_token(weight_OI: Tensor, bias_O: Tensor | None, x_BCHW: Tensor) -> Tensor:
    """A 1x1 convolution as one matrix product over all pixels, channels last in memory (faster than conv2d on CPU)."""
    return F.linear(x_BCHW.movedim(1, -1), weight_OI, bias_O).movedim(-1, 1)
