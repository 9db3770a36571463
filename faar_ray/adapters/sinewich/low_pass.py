"""The Gaussian low-pass of Free Sinewich, over two axes of a stack of matrices or kernels.

Edges are mirrored about the outer side of the last cell (... c b a | a b c ...): a constant stays one, and the filter
is its own adjoint, so that the gradient is filtered as the matrix was. With K = 1 it is the identity.
"""

from __future__ import annotations

import math
from typing import Any

import torch
from torch import Tensor
from torch.autograd import Function
from torch.autograd.function import once_differentiable

IN_CACHE = 2**16
"""Numbers that a chunk of rows holds on a CPU: three passes over memory become one."""
LONG = 64
"""Cells beyond which edges no longer matter to the norm of an axis."""


def low_pass(x: Tensor, size: int, sigma: float) -> Tensor:
    """(..., H, W) filtered along both axes by a Gaussian of `size` taps (odd)."""
    if size == 1:
        return x
    if torch.compiler.is_compiling():
        return _filtered(_filtered(x, size, sigma, -1), size, sigma, -2)
    out: Tensor = _LowPass.apply(x, size, sigma)
    return out


def taps(size: int, sigma: float) -> list[float]:
    """The Gaussian's weights, which sum to 1."""
    raw = [math.exp(-0.5 * ((i - size // 2) / sigma) ** 2) for i in range(size)]
    return [weight / sum(raw) for weight in raw]


def norm_kept(shape: tuple[int, int], size: int, sigma: float) -> float:
    """The share of its norm that white noise of this shape keeps on average: 0.28 for K = 7, sigma = 1."""
    return math.prod(_norm_kept_along(min(cells, LONG), size, sigma) for cells in shape)


def _norm_kept_along(cells: int, size: int, sigma: float) -> float:
    """In plain numbers, which torch.compile takes for the constant that they are."""
    squares = 0.0
    for cell in range(cells):
        row = [0.0] * cells
        for i, weight in enumerate(taps(size, sigma)):
            turned = (cell + i - size // 2) % (2 * cells)
            row[min(turned, 2 * cells - 1 - turned)] += weight
        squares += sum(weight**2 for weight in row)
    return math.sqrt(squares / cells)


class _LowPass(Function):
    @staticmethod
    def forward(ctx: Any, x: Tensor, size: int, sigma: float) -> Tensor:
        ctx.filter = size, sigma
        return _both_axes(x, size, sigma)

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, g: Tensor) -> tuple[Tensor, None, None]:
        return _both_axes(g, *ctx.filter), None, None


def _both_axes(x: Tensor, size: int, sigma: float) -> Tensor:
    height, width = x.shape[-2:]
    rows = IN_CACHE // width
    if x.device.type != "cpu" or rows < 2 * size or rows >= height:
        return _filtered(_filtered(x, size, sigma, -1), size, sigma, -2)
    out = torch.empty_like(x, memory_format=torch.contiguous_format)
    source = mirrored(height, size // 2, x.device)
    for matrix, filled in zip(x.reshape(-1, height, width), out.view(-1, height, width), strict=True):
        for start in range(0, height, rows):
            stop = min(start + rows, height)
            around = matrix.index_select(0, source[start : stop + size - 1])
            filled[start:stop] = _filtered(_weighted(around, size, sigma, -2), size, sigma, -1)
    return out


def _filtered(x: Tensor, size: int, sigma: float, axis: int) -> Tensor:
    return _weighted(x.index_select(axis, mirrored(x.shape[axis], size // 2, x.device)), size, sigma, axis)


def _weighted(padded: Tensor, size: int, sigma: float, axis: int) -> Tensor:
    """The sum of the shifted windows of an axis that holds `size - 1` cells more than the result."""
    cells = padded.shape[axis] - size + 1
    weights = taps(size, sigma)
    out = padded.narrow(axis, 0, cells) * weights[0]
    for i in range(1, size):
        out = out.add_(padded.narrow(axis, i, cells), alpha=weights[i])
    return out


def mirrored(cells: int, margin: int, device: torch.device) -> Tensor:
    """Which cell stands at -margin .. cells + margin - 1, mirrored as often as it takes."""
    turned = torch.arange(-margin, cells + margin, device=device).remainder(2 * cells)
    return torch.minimum(turned, 2 * cells - 1 - turned)
