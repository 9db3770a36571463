"""Swin blocks over tokens in their own window order; the last block of a stage has one stream per task besides.

Axes: T tasks, S streams in (1 until the first task-specific layer, then K), K streams out (the shared one first, if
it goes on, then T), B batch, L tokens, C channels, H W space.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import torch
from timm.models.swin_transformer import SwinTransformerBlock
from torch import Tensor, nn

from faar_ray.adapters import SineLinears, TaskLinears
from faar_ray.config.trial import LayerName
from faar_ray.models.swin.token_layout import Layout, as_grid, reorder
from faar_ray.models.swin.window_attention import attend

ORDER: tuple[LayerName, ...] = ("qkv", "proj", "fc1", "fc2")


def run_shared(block: SwinTransformerBlock, x_BLC: Tensor, layout: Layout) -> Tensor:
    """timm's own block (whose linears may carry adapters), (B, L, C) -> (B, L, C) in `layout.windows(block)`."""
    x = residual(x_BLC, block.attn.proj(attend(block, block.norm1(x_BLC), block.attn.qkv, layout)), block.drop_path1)
    return residual(x, block.mlp.fc2(block.mlp.act(block.mlp.fc1(block.norm2(x)))), block.drop_path2)


class TaskBlock(nn.Module):
    """Wraps a Swin block (whose linears may carry shared adapters) and adds task-specific linears beside them.

    With `continues=False` (last stage) no shared stream leaves the block, so what would only serve it is not
    computed. With `shared_input=True` (MTLoRA's task path) the frozen weights see the shared stream only.
    """

    def __init__(
        self,
        block: SwinTransformerBlock,
        task_linears: Mapping[str, TaskLinears | SineLinears],
        continues: bool,
        *,
        shared_input: bool = False,
    ) -> None:
        super().__init__()
        self.block = block
        self.task_linears = nn.ModuleDict(task_linears)
        self.continues = continues
        self.shared_input = shared_input
        self.last_layer = max(task_linears, key=ORDER.index)

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
        block, x = self.block, x_BLC[None]
        mixed = attend(block, block.norm1(x_BLC), self._qkv, layout).unflatten(0, (-1, len(x_BLC)))
        x = _added(x, self._linear("proj", block.attn.proj, mixed, layout), block.drop_path1)
        hidden = block.mlp.act(self._linear("fc1", block.mlp.fc1, block.norm2(x), layout))
        x = _added(x, self._linear("fc2", block.mlp.fc2, hidden, layout), block.drop_path2)
        if not self.continues:
            return None, x
        shared, streams = x.split([1, len(x) - 1])  # its gradient is one concatenation; slices would each fill a whole
        return shared[0], streams

    def _qkv(self, windows: Tensor) -> Tensor:
        return self._linear("qkv", self.block.attn.qkv, windows[None]).flatten(0, 1)

    def _linear(self, layer: str, module: nn.Module, x: Tensor, layout: Layout | None = None) -> Tensor:
        """(S, ..., I) -> (K, ..., O), or (S, ..., O) where all streams use the shared linear."""
        out: Tensor
        if layer not in self.task_linears:
            out = module(x)
            return out
        task_linears: Any = self.task_linears[layer]
        carried = self.continues or (self.shared_input and layer != self.last_layer)
        if self.shared_input:
            out = task_linears.on_shared_input(module if carried else None, x)
            return out
        grid = (layout,) if getattr(task_linears, "needs_grid", False) else ()
        out = task_linears.with_shared(module, x, *grid) if carried else task_linears(x, *grid)
        return out


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
