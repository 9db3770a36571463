"""The order in which the tokens of a grid lie in memory, and how to go from one order to another in one gather.

Everything in a Swin block but attention works token by token. So tokens may lie window by window, as attention wants
them, from one block to the next: a shift, a partition and their inverses become one gather between two blocks.

Axes: B batch, L tokens, C channels, H W space.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import lru_cache
from typing import Any

import torch
from timm.models.swin_transformer import SwinTransformerBlock
from torch import Tensor
from torch.autograd import Function
from torch.autograd.function import once_differentiable


@dataclass(frozen=True, slots=True)
class Layout:
    """Tiles of a grid in raster order, tokens in raster order (or column by column) within a tile.

    The grid is first rolled up and left by `shift`. Tiles of one token: plain raster order.
    """

    height: int
    width: int
    tile: tuple[int, int] = (1, 1)
    shift: tuple[int, int] = (0, 0)
    by_column: bool = False

    def raster(self) -> Tensor:
        """Raster position of every token, (L,)."""
        (h, w), (down, right) = self.tile, self.shift
        grid = torch.arange(self.height * self.width).view(self.height, self.width).roll((-down, -right), (0, 1))
        tiles = grid.view(self.height // h, h, self.width // w, w)
        return tiles.permute(0, 2, 3, 1).reshape(-1) if self.by_column else tiles.transpose(1, 2).reshape(-1)

    def image(self, x: Tensor) -> Tensor:
        """(..., L, C) -> (..., C, H, W)."""
        return as_grid(x, self).movedim(-1, -3)

    def tokens(self, x: Tensor) -> Tensor:
        """(..., C, H, W) -> (..., L, C), undoing `image`."""
        return reorder(x.flatten(-2).transpose(-1, -2), self.plain(), self)

    def plain(self) -> Layout:
        """Raster order of the same grid."""
        return Layout(self.height, self.width)

    def merging(self) -> Layout:
        """As timm's patch merging concatenates 2x2 tokens; both sides must be even."""
        return Layout(self.height, self.width, (2, 2), by_column=True)

    def windows(self, block: SwinTransformerBlock) -> Layout:
        """Window by window, as this block attends; plain where its windows do not divide the grid and need padding."""
        h, w = block.window_size
        if self.height % h or self.width % w:
            return self.plain()
        return Layout(self.height, self.width, (h, w), tuple(block.shift_size))


def reorder(x: Tensor, source: Layout, target: Layout) -> Tensor:
    """(..., L, C) from one order to another."""
    if torch.compiler.is_compiling():
        return x.index_select(-2, _moves(source, target).to(x.device))
    forward_index, back = permutation(source, target, x.device)
    if forward_index is None:
        return x
    moved: Tensor = _Reorder.apply(x, forward_index, back)
    return moved


def as_grid(x: Tensor, layout: Layout) -> Tensor:
    """(..., L, C) -> (..., H, W, C)."""
    grid: Tensor = reorder(x, layout, layout.plain()).unflatten(-2, (layout.height, layout.width))
    return grid


@lru_cache(maxsize=256)
def permutation(source: Layout, target: Layout, device: torch.device) -> tuple[Tensor | None, Tensor | None]:
    """Where each token of `target` lies in `source`, and the inverse; None for both where nothing moves."""
    with torch.inference_mode(False):
        forward_index = _moves(source, target)
        if torch.equal(forward_index, torch.arange(len(forward_index))):
            return None, None
        return forward_index.to(device), forward_index.argsort().to(device)


def _moves(source: Layout, target: Layout) -> Tensor:
    return source.raster().argsort()[target.raster()]


class _Reorder(Function):
    """A gather whose gradient is a gather: autograd's own would be a scattered sum."""

    @staticmethod
    def forward(ctx: Any, x: Tensor, forward_index: Tensor, back: Tensor) -> Tensor:
        ctx.back = back
        return _gather(x, forward_index)

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, g: Tensor) -> tuple[Tensor, None, None]:
        return _gather(g, ctx.back), None, None


def _gather(x: Tensor, index_L: Tensor) -> Tensor:
    return x.flatten(0, -3).index_select(1, index_L).view_as(x)
