"""The last block of a quarter of a ViT: a shared stream that goes on, and one stream per task.

Axes: S streams (1 until the first task-specific layer, then T), T tasks, B batch, N tokens, C channels.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping

import torch.nn.functional as F
from timm.models.vision_transformer import Block as ViTBlock
from torch import Tensor, nn

from faar_ray.adapters import SineLinears, TaskLinears

__all__ = ["ViTBlock", "ViTTaskBlock"]

Linear = Callable[[Tensor], Tensor]


class ViTTaskBlock(nn.Module):
    """Wraps a plain timm ViT block and adds task-specific linears beside its own.

    With `continues=False` (last quarter) no shared stream leaves the block, so none is computed.
    """

    def __init__(self, block: ViTBlock, task_linears: Mapping[str, TaskLinears | SineLinears], continues: bool) -> None:
        super().__init__()
        self.block = block
        self.task_linears = nn.ModuleDict(task_linears)
        self.continues = continues

    def forward(self, x_BNC: Tensor) -> tuple[Tensor | None, Tensor]:
        """(B, N, C) -> the shared stream (B, N, C) or None, and the task streams (T, B, N, C)."""
        x = x_BNC[None]
        normed = self.block.norm1(x)
        attn, mlp = self.block.attn, self.block.mlp
        shared: dict[str, Linear] = {"qkv": attn.qkv, "proj": attn.proj, "fc1": mlp.fc1, "fc2": mlp.fc2}
        tasks: dict[str, Linear] = {**shared, **self.task_linears}
        of_tasks = attend(self.block, normed, tasks["qkv"])
        streams = self._rest(x, of_tasks, tasks)
        if not self.continues:
            return None, streams
        of_shared = attend(self.block, normed, shared["qkv"]) if "qkv" in self.task_linears else of_tasks
        return self._rest(x, of_shared, shared)[0], streams

    def _rest(self, x: Tensor, attended: Tensor, linears: Mapping[str, Linear]) -> Tensor:
        """Everything after the attention weights were applied: proj, residual, MLP, residual."""
        block = self.block
        x = x + _per_image(block.drop_path1, block.ls1(linears["proj"](attended)))
        hidden = block.mlp.norm(block.mlp.act(linears["fc1"](block.norm2(x))))
        return x + _per_image(block.drop_path2, block.ls2(linears["fc2"](hidden)))


def _per_image(drop_path: nn.Module, x_SBNC: Tensor) -> Tensor:
    dropped: Tensor = drop_path(x_SBNC.flatten(0, 1))
    return dropped.view_as(x_SBNC)


def attend(block: ViTBlock, x_SBNC: Tensor, qkv: Linear) -> Tensor:
    """Attention over all tokens up to, not including, the output projection: (S', B, N, C)."""
    attn = block.attn
    q, k, v = qkv(x_SBNC).unflatten(-1, (3, attn.num_heads, -1)).movedim(-3, 0).transpose(-2, -3).unbind(0)
    mixed = F.scaled_dot_product_attention(attn.q_norm(q), attn.k_norm(k), v)
    out: Tensor = attn.norm(mixed.transpose(-2, -3).flatten(-2))
    return out
