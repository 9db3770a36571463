"""Swin blocks over tokens in their own window order; the last block of a stage has one stream per task besides.

Axes: T tasks, S streams in (1 until the first task-specific layer, then K), K streams out (the shared one first, if
it goes on, then T), B batch, L tokens, C channels, H W space.
"""

from __future__ import annotations

import torch
from timm.models.swin_transformer import SwinTransformerBlock
from torch import Tensor, nn

from faar_ray.models.swin.token_layout import Layout, as_grid, reorder
from faar_ray.models.swin.window_attention import attend
from faar_ray.models.task_streams import TaskStreams


def run_shared(block: SwinTransformerBlock, x_BLC: Tensor, layout: Layout) -> Tensor:
    """timm's own block (whose linears may carry adapters), (B, L, C) -> (B, L, C) in `layout.windows(block)`."""
    x = residual(x_BLC, block.attn.proj(attend(block, block.norm1(x_BLC), block.attn.qkv, layout)), block.drop_path1)
    return residual(x, block.mlp.fc2(block.mlp.act(block.mlp.fc1(block.norm2(x)))), block.drop_path2)


class TaskBlock(TaskStreams):
    """A Swin block with a stream for each task."""

    ORDER = ("qkv", "proj", "fc1", "fc2")

    def forward(self, x_BHWC: Tensor) -> tuple[Tensor | None, Tensor]:
        """(B, H, W, C) -> the shared stream (B, H, W, C) or None, and the task streams (T, B, H, W, C)."""
        plain = Layout(*x_BHWC.shape[1:3])
        layout = plain.windows(self.block)
        outputs = self.run(reorder(x_BHWC.flatten(1, 2), plain, layout), layout)
        shared, streams = (x if x is None else as_grid(x, layout) for x in outputs)
        assert streams is not None
        return shared, streams

    def run(self, x_BLC: Tensor, layout: Layout) -> tuple[Tensor | None, Tensor]:
        """The same on tokens in `layout`: (B, L, C) or None, and (T, B, L, C)."""
        mixed = attend(self.block, self.block.norm1(x_BLC), self._qkv, layout).unflatten(0, (-1, len(x_BLC)))
        return self.after_attention(x_BLC, mixed, layout)

    def after_attention(self, x_BLC: Tensor, mixed: Tensor, layout: Layout) -> tuple[Tensor | None, Tensor]:
        """The rest of the block, from what goes into the output projection, (S, B, L, C)."""
        block, x = self.block, x_BLC[None]
        x = _added(x, self.linear("proj", block.attn.proj, mixed, layout), block.drop_path1)
        hidden = block.mlp.act(self.linear("fc1", block.mlp.fc1, block.norm2(x), layout))
        x = _added(x, self.linear("fc2", block.mlp.fc2, hidden, layout), block.drop_path2)
        return self.parted(x)

    def _qkv(self, windows: Tensor) -> Tensor:
        return self.linear("qkv", self.block.attn.qkv, windows[None]).flatten(0, 1)


def _added(x: Tensor, y: Tensor, drop_path: nn.Module) -> Tensor:
    """Residual of streams; the shared one is dropped where y no longer has it."""
    return residual(x if len(x) == 1 else x[-len(y) :], y, drop_path)


def residual(x: Tensor, y: Tensor, drop_path: nn.Module) -> Tensor:
    """x + y, y dropped for some images (stochastic depth), each stream (..., L, C) on its own."""
    rate = float(getattr(drop_path, "drop_prob", 0.0) or 0.0)
    if rate == 0 or not drop_path.training:
        return x + y
    kept = x.new_empty(*y.shape[:-2], 1, 1).bernoulli_(1 - rate).div_(1 - rate)
    return torch.addcmul(x, y.to(x.dtype), kept)
