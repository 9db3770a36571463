"""Bilinear upsampling as two matrix products.

Interpolation is linear in the map and separable, so that a map of any number of channels becomes R_H X R_W^T. On a CPU
the backward pass of `F.interpolate` takes longer than the products of both passes together.

Axes: B batch, C channels, h w given size, H W wanted size.
"""

from __future__ import annotations

from functools import lru_cache

import torch
import torch.nn.functional as F
from torch import Tensor


def upsampled(x_BChw: Tensor, size: tuple[int, int]) -> Tensor:
    """`F.interpolate(x, size, mode="bilinear")`, equal but for the order of sums; (B, C, H, W)."""
    given = (x_BChw.shape[-2], x_BChw.shape[-1])
    if given == size:
        return x_BChw
    if x_BChw.device.type != "cpu" or torch.compiler.is_compiling() or torch.is_autocast_enabled("cpu"):
        return F.interpolate(x_BChw, size=size, mode="bilinear")
    rows_Hh, columns_Ww = (weights(a, b, x_BChw.dtype) for a, b in zip(given, size, strict=True))
    tall = torch.matmul(rows_Hh, x_BChw.contiguous())
    return F.linear(tall, columns_Ww)


@lru_cache(maxsize=64)
def weights(given: int, wanted: int, dtype: torch.dtype) -> Tensor:
    """R, (wanted, given): what each given cell contributes to each wanted one."""
    with torch.inference_mode(False), torch.no_grad():
        return F.interpolate(torch.eye(given, dtype=dtype)[None], size=wanted, mode="linear")[0].t().contiguous()
