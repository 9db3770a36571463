"""The pyramid of an adapted Swin, computed with one gather per block.

Axes: S streams (1 or T tasks), B batch, H W space, L tokens, C channels.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import torch.nn.functional as F
from timm.models.swin_transformer import PatchMerging, SwinTransformer
from torch import Tensor, nn

from faar_ray.models.swin.task_block import TaskBlock, run_shared
from faar_ray.models.swin.token_layout import Layout, as_grid, reorder


@dataclass(frozen=True)
class Level:
    """A stage's maps (S, B, H, W, C), with a frozen linear that is still to be applied, if any.

    A decoder starts with 1x1 reductions to few channels, without biases. Nothing lies between them and a frozen patch
    merging, so the product of both weights does the work of both, exactly.
    """

    maps: Tensor
    deferred_linear: nn.Linear | None = None

    @classmethod
    def after(cls, linear: nn.Module, maps: Tensor) -> Level:
        """What a linear makes of maps; a plain one that is frozen is left to the decoder."""
        if isinstance(linear, nn.Linear) and not any(p.requires_grad for p in linear.parameters()):
            return cls(maps, linear)
        return cls(linear(maps))

    def materialised(self) -> Tensor:
        """The maps with nothing pending."""
        return self.maps if self.deferred_linear is None else self.deferred_linear(self.maps)

    def reduced(self, reductions: Sequence[nn.Conv2d]) -> list[Tensor]:
        """Each task's map by its own 1x1 reduction, (B, width, H, W)."""
        streams = self.maps.unbind(0) if len(self.maps) > 1 else [self.maps[0]] * len(reductions)
        weights = [reduction.weight.flatten(1) for reduction in reductions]
        biases: list[Tensor | None] = [None] * len(weights)
        if (linear := self.deferred_linear) is not None:
            if linear.bias is not None:
                biases = [weight @ linear.bias for weight in weights]
            weights = [weight @ linear.weight for weight in weights]
        each = zip(streams, weights, biases, strict=True)
        return [F.linear(x, weight, bias).movedim(-1, 1) for x, weight, bias in each]


RunBlocks = Callable[[Sequence[nn.Module], Tensor, Layout], tuple[Tensor, Tensor | None, Layout]]
"""(blocks of a stage, tokens, how they lie) -> the shared stream, those of the tasks if any, and how tokens lie now."""


def swin_levels(
    backbone: SwinTransformer, image_B3HW: Tensor, *, merged: bool, run: RunBlocks | None = None
) -> list[Level]:
    """All stages' levels: merged, at strides 8, 16, 32, 32, or not, at 4, 8, 16, 32; `run` runs the blocks of each."""
    run = run or run_blocks
    x_BHWC = backbone.patch_embed(image_B3HW)
    x, layout = x_BHWC.flatten(1, 2), Layout(*x_BHWC.shape[1:3])
    stages, levels = list(backbone.layers), []
    for stage, following in zip(stages, [*stages[1:], None], strict=True):
        x, streams, layout = run(stage.blocks, x, layout)
        if following is None or not merged:
            levels.append(Level(as_grid(x[None] if streams is None else streams, layout)))
        elif streams is not None:
            levels.append(_merged_level(following.downsample, streams, layout))
        if following is not None:
            x, layout = _neighbours(following.downsample, x, layout)
            x = following.downsample.reduction(x)
            if merged and streams is None:
                levels.append(Level(as_grid(x[None], layout)))
    return levels


def run_blocks(blocks: Sequence[nn.Module], x: Tensor, layout: Layout) -> tuple[Tensor, Tensor | None, Layout]:
    """Block by block, as `RunBlocks` says."""
    for block in blocks:
        of_block = layout.windows(block.block if isinstance(block, TaskBlock) else block)
        x, layout = reorder(x, layout, of_block), of_block
        if isinstance(block, TaskBlock):
            shared, streams = block.run(x, layout)
            return x if shared is None else shared, streams, layout
        x = run_shared(block, x, layout)
    return x, None, layout


def _merged_level(merging: PatchMerging, streams: Tensor, layout: Layout) -> Level:
    x, coarser = _neighbours(merging, streams, layout)
    return Level.after(merging.reduction, as_grid(x, coarser))


def _neighbours(merging: PatchMerging, x: Tensor, layout: Layout) -> tuple[Tensor, Layout]:
    """2x2 neighbours side by side and normalised, (..., L, C) -> (..., L / 4, 4C), odd sides padded as timm does."""
    if layout.height % 2 or layout.width % 2:
        padded = F.pad(as_grid(x, layout), (0, 0, 0, layout.width % 2, 0, layout.height % 2))
        layout = Layout(*padded.shape[-3:-1])
        x = padded.flatten(-3, -2)
    x = reorder(x, layout, layout.merging())
    normed: Tensor = merging.norm(x.reshape(*x.shape[:-2], -1, 4 * x.shape[-1]))
    return normed, Layout(layout.height // 2, layout.width // 2)
