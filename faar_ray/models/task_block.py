"""The last block of a stage: a shared stream that goes on, and one stream per task (FAAR, overall architecture).

Axes: T tasks, S streams (1 until the first task-specific layer, then T), B batch, H W space, C channels, n tokens
of a window.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping

import torch
import torch.nn.functional as F
from timm.models.swin_transformer import SwinTransformerBlock, window_partition, window_reverse
from torch import Tensor, nn

from faar_ray.adapters import TaskLinears

Linear = Callable[[Tensor], Tensor]


class TaskBlock(nn.Module):
    """Wraps a Swin block (whose linears may carry shared adapters) and adds task-specific linears beside them.

    With `continues=False` (last stage) no shared stream leaves the block, so none is computed.
    """

    def __init__(self, block: SwinTransformerBlock, task_linears: Mapping[str, TaskLinears], continues: bool) -> None:
        super().__init__()
        self.block = block
        self.task_linears = nn.ModuleDict(task_linears)
        self.continues = continues

    def forward(self, x_BHWC: Tensor) -> tuple[Tensor | None, Tensor]:
        """(B, H, W, C) -> the shared stream (B, H, W, C) or None, and the task streams (T, B, H, W, C)."""
        x = x_BHWC[None]
        normed = self.block.norm1(x)
        shared: dict[str, Linear] = {"qkv": self.block.attn.qkv, "proj": self.block.attn.proj, **self._mlp_linears()}
        tasks: dict[str, Linear] = {**shared, **self.task_linears}
        of_tasks = attend(self.block, normed, tasks["qkv"])
        streams = self._rest(x, of_tasks, tasks)
        if not self.continues:
            return None, streams
        of_shared = attend(self.block, normed, shared["qkv"]) if "qkv" in self.task_linears else of_tasks
        return self._rest(x, of_shared, shared)[0], streams

    def _mlp_linears(self) -> dict[str, Linear]:
        return {"fc1": self.block.mlp.fc1, "fc2": self.block.mlp.fc2}

    def _rest(self, x: Tensor, attended: Tensor, linears: Mapping[str, Linear]) -> Tensor:
        """Everything after the attention weights were applied: proj, residual, MLP, residual."""
        x = x + _per_image(self.block.drop_path1, linears["proj"](attended))
        hidden = self.block.mlp.act(linears["fc1"](self.block.norm2(x)))
        return x + _per_image(self.block.drop_path2, linears["fc2"](hidden))


def _per_image(drop_path: nn.Module, x_SBHWC: Tensor) -> Tensor:
    dropped: Tensor = drop_path(x_SBHWC.flatten(0, 1))
    return dropped.view_as(x_SBHWC)


def attend(block: SwinTransformerBlock, x_SBHWC: Tensor, qkv: Linear) -> Tensor:
    """Shifted-window attention of a Swin block up to, not including, its output projection.

    `proj` works per token, so it may follow the return from windows to the grid; that is what lets tasks share
    one attention. Returns (S', B, H, W, C), S' = S or, if `qkv` is task-specific, T.
    """
    batch, height, width = x_SBHWC.shape[1:4]
    window, shift = block.window_size, block.shift_size
    x = x_SBHWC.flatten(0, 1)
    if any(shift):
        x = torch.roll(x, shifts=(-shift[0], -shift[1]), dims=(1, 2))
    x = F.pad(x, (0, 0, 0, -width % window[1], 0, -height % window[0]))
    padded = x.shape[1:3]
    windows = window_partition(x, window).flatten(1, 2)
    mixed = _mix(block, qkv(windows.unflatten(0, (len(x_SBHWC), -1))).flatten(0, 1))
    grid: Tensor = window_reverse(mixed.unflatten(1, window), window, *padded)[:, :height, :width]
    if any(shift):
        grid = torch.roll(grid, shifts=shift, dims=(1, 2))
    return grid.reshape(-1, batch, *grid.shape[1:])


def _mix(block: SwinTransformerBlock, qkv: Tensor) -> Tensor:
    """Attention inside windows with relative-position bias, (windows, n, 3C) -> (windows, n, C)."""
    attn = block.attn
    windows, tokens, _ = qkv.shape
    q, k, v = qkv.view(windows, tokens, 3, attn.num_heads, -1).permute(2, 0, 3, 1, 4).unbind(0)
    bias = attn._get_rel_pos_bias()
    if block.attn_mask is not None:
        masks = len(block.attn_mask)
        bias = (bias + block.attn_mask[:, None]).repeat(windows // masks, 1, 1, 1)
    mixed = F.scaled_dot_product_attention(q, k, v, attn_mask=bias.to(q.dtype))
    return mixed.transpose(1, 2).flatten(2)
