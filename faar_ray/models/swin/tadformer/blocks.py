"""Swin blocks with task prompts; the last one of a stage makes a stream for each task (TADFormer).

Axes: T tasks, B batch, L tokens, C channels, G windows of all images, n tokens of a window.
"""

from __future__ import annotations

from typing import Any

import torch
from timm.models.swin_transformer import SwinTransformerBlock
from torch import Tensor, nn

from faar_ray.models.swin.prompted_attention import attend, focused, from_windows, scrambled
from faar_ray.models.swin.task_block import residual
from faar_ray.models.swin.token_layout import Layout


def run_prompted(
    block: SwinTransformerBlock, x_BLC: Tensor, prompts_BTC: Tensor, layout: Layout
) -> tuple[Tensor, Tensor]:
    """timm's own block, whose linears may carry adapters, with prompts in its windows: (B, L, C) and (B, T, C)."""
    tasks = prompts_BTC.shape[1]
    y = block.attn.proj(attend(block, x_BLC, prompts_BTC, layout)[0])
    x = residual(x_BLC, from_windows(block, y[:, tasks:], layout), block.drop_path1)
    return residual(x, _mlp(block, x), block.drop_path2), next_prompts(block, prompts_BTC, y[:, :tasks])


def next_prompts(block: SwinTransformerBlock, prompts_BTC: Tensor, y_GTC: Tensor) -> Tensor:
    """p + MLP(norm2(mean over windows)): as in the authors' code, attention has no residual of its own."""
    mean_BTC = y_GTC.unflatten(0, (len(prompts_BTC), -1)).mean(1)
    return residual(prompts_BTC, _mlp(block, mean_BTC), block.drop_path2)


def _mlp(block: SwinTransformerBlock, x: Tensor) -> Tensor:
    y: Tensor = block.mlp.fc2(block.mlp.act(block.mlp.fc1(block.norm2(x))))
    return y


class PromptedTaskBlock(nn.Module):
    """The last block of a stage, whose proj, fc1 and fc2 are `FilteredLinear`s.

    With `continues=False` (last stage) neither the shared stream nor the prompts leave it.
    """

    def __init__(self, block: SwinTransformerBlock, *, continues: bool, scrambles: bool) -> None:
        super().__init__()
        self.block: Any = block
        self.prompt_norm = nn.LayerNorm(block.norm1.normalized_shape[0])
        self.continues, self.scrambles = continues, scrambles

    def run(
        self, x_BLC: Tensor, prompts_BTC: Tensor, layout: Layout, gate: Tensor
    ) -> tuple[Tensor | None, Tensor, Tensor | None]:
        """The shared stream (B, L, C) or None, the tasks' (T, B, L, C), and the prompts (B, T, C) or None.

        Args:
            x_BLC: tokens in `layout`.
            prompts_BTC: prompts.
            layout: how tokens lie.
            gate: g of the stage.
        """
        block, tasks = self.block, prompts_BTC.shape[1]
        proj, fc1, fc2 = block.attn.proj, block.mlp.fc1, block.mlp.fc2
        y, maps = attend(block, x_BLC, prompts_BTC, layout)

        frozen, dropped = proj.products(y)
        shared = proj.shared(frozen, dropped)
        focus = focused(maps, dropped[:, tasks:])
        own = self.prompt_norm(focus + dropped[:, tasks:])
        own = proj.of_tasks(frozen[:, tasks:], own, Layout(*block.window_size))
        streams = residual(x_BLC, from_windows(block, own, layout), block.drop_path1)
        x = residual(x_BLC, from_windows(block, shared[:, tasks:], layout), block.drop_path1)

        frozen, dropped = fc1.products(block.norm2(x))
        hidden = block.mlp.act(fc1.shared(frozen, dropped))
        own = block.mlp.act(fc1.of_tasks(frozen, block.norm2(streams), layout))
        frozen, dropped = fc2.products(hidden)
        streams = residual(streams, fc2.of_tasks(frozen, own, layout), block.drop_path2)

        skip = from_windows(block, scrambled(focus) if self.scrambles else focus, layout)
        streams = torch.lerp(streams, skip.to(streams.dtype), gate.sigmoid().to(streams.dtype))
        if not self.continues:
            return None, streams, None
        x = residual(x, fc2.shared(frozen, dropped), block.drop_path2)
        return x, streams, next_prompts(block, prompts_BTC, shared[:, :tasks])
