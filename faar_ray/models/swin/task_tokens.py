"""A Swin whose attention windows hold the tokens of tasks beside their own (Free Sinewich).

As in VPT every window sees the same tokens, and the next block gets the mean of what the windows made of them.

Axes: T tasks, B batch, L tokens, C channels, G windows of all images, n tokens of a window.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from timm.models.swin_transformer import SwinTransformerBlock
from torch import Tensor, nn

from faar_ray.adapters.sinewich.task_tokens import TaskTokens
from faar_ray.models.multitask import MultiTaskModel
from faar_ray.models.swin.levels import Level, swin_levels
from faar_ray.models.swin.prompted_attention import attend, from_windows
from faar_ray.models.swin.task_block import TaskBlock, residual
from faar_ray.models.swin.token_layout import Layout, reorder


class TokenSwin(MultiTaskModel):
    """image -> {task: prediction}; the tasks' tokens go with the shared stream from block to block."""

    def levels(self, image_B3HW: Tensor) -> list[Level]:
        """Each stage's map, (T, B, H', W', C'): merged, at strides 8, 16, 32, 32, or not, at 4, 8, 16, 32."""
        assert isinstance(self.prompts, TaskTokens)
        passing = _Pass(self.prompts, [stage.downsample for stage in self.backbone.layers], len(image_B3HW))
        return swin_levels(self.backbone, image_B3HW, merged=self.merged, run=passing.stage)


class _Pass:
    """The tokens of one forward pass."""

    def __init__(self, tokens: TaskTokens, mergings: Sequence[Any], batch: int) -> None:
        self.of_model, self.mergings, self.tokens_BTC, self.number = tokens, mergings, tokens.first(batch), 0

    def stage(self, blocks: Sequence[nn.Module], x: Tensor, layout: Layout) -> tuple[Tensor, Tensor | None, Layout]:
        """All blocks of the next stage, as `swin_levels` wants them run."""
        if self.number:
            self.tokens_BTC = self._carried()
        self.number += 1
        for block in blocks:
            of_block = layout.windows(block.block if isinstance(block, TaskBlock) else block)
            x, layout = reorder(x, layout, of_block), of_block
            if isinstance(block, TaskBlock):
                shared, streams, tokens = run_last(block, x, self.tokens_BTC, layout)
                self.tokens_BTC = self.tokens_BTC if tokens is None else tokens
                return x if shared is None else shared, streams, layout
            x, self.tokens_BTC = run_shared(block, x, self.tokens_BTC, layout)
        raise AssertionError("the last block of a stage makes the streams of tasks")

    def _carried(self) -> Tensor:
        """Between two stages: lifted, or through the merging of 2x2 tokens as four copies."""
        if len(self.of_model.lifts):
            return self.of_model.lifted(self.tokens_BTC, self.number - 1)
        merging = self.mergings[self.number]
        merged: Tensor = merging.reduction(merging.norm(self.tokens_BTC.repeat(1, 1, 4)))
        return merged


def run_shared(block: SwinTransformerBlock, x_BLC: Tensor, tokens_BTC: Tensor, layout: Layout) -> tuple[Tensor, Tensor]:
    """timm's own block, whose linears may carry adapters, with tokens in its windows: (B, L, C) and (B, T, C)."""
    tasks = tokens_BTC.shape[1]
    y = block.attn.proj(attend(block, x_BLC, tokens_BTC, layout)[0])
    x = residual(x_BLC, from_windows(block, y[:, tasks:], layout), block.drop_path1)
    return residual(x, _mlp(block, x), block.drop_path2), next_tokens(block, tokens_BTC, y[:, :tasks])


def run_last(
    block: TaskBlock, x_BLC: Tensor, tokens_BTC: Tensor, layout: Layout
) -> tuple[Tensor | None, Tensor, Tensor | None]:
    """The shared stream (B, L, C) or None, the tasks' (T, B, L, C), and the tokens (B, T, C) or None."""
    swin, tasks = block.block, tokens_BTC.shape[1]
    mixed = attend(swin, x_BLC, tokens_BTC, layout)[0]
    shared, streams = block.after_attention(x_BLC, from_windows(swin, mixed[:, tasks:], layout)[None], layout)
    if not block.continues:
        return shared, streams, None
    return shared, streams, next_tokens(swin, tokens_BTC, swin.attn.proj(mixed[:, :tasks]))


def next_tokens(block: SwinTransformerBlock, tokens_BTC: Tensor, y_GTC: Tensor) -> Tensor:
    """The block's two residual branches for tokens, of which each window made its own."""
    mean_BTC = y_GTC.unflatten(0, (len(tokens_BTC), -1)).mean(1)
    tokens = residual(tokens_BTC, mean_BTC, block.drop_path1)
    return residual(tokens, _mlp(block, tokens), block.drop_path2)


def _mlp(block: SwinTransformerBlock, x: Tensor) -> Tensor:
    y: Tensor = block.mlp.fc2(block.mlp.act(block.mlp.fc1(block.norm2(x))))
    return y
