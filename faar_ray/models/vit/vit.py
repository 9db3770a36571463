"""A plain timm ViT as four quarters, so that "the last block of each stage" has a meaning (FAAR's open question).

A ViT has one resolution; the quarters' maps are resized to the strides of a Swin.
Axes: T tasks, B batch, N tokens, H W space, C channels.
"""

from __future__ import annotations

from collections.abc import Sequence
from itertools import pairwise
from typing import Any

import torch
import torch.nn.functional as F
from timm.models.vision_transformer import VisionTransformer
from torch import Tensor, nn

from faar_ray.adapters.sinewich.task_tokens import TaskTokens
from faar_ray.models.multitask import MultiTaskModel
from faar_ray.models.swin.levels import Level
from faar_ray.models.vit.vit_block import ViTBlock, ViTTaskBlock

QUARTERS = 4
STRIDES = {True: (8, 16, 32, 32), False: (4, 8, 16, 32)}


def bounds(depth: int) -> list[int]:
    """Where the quarters of so many blocks start, and where the last one ends."""
    return [round(quarter * depth / QUARTERS) for quarter in range(QUARTERS + 1)]


class Quarter(nn.Module):
    """Successive blocks; what a stage is to a Swin."""

    def __init__(self, blocks: list[ViTBlock]) -> None:
        super().__init__()
        self.blocks = nn.ModuleList(blocks)


class QuarteredViT(nn.Module):
    """Patches, positions, and the blocks in four quarters of (nearly) equal depth; the rest is left out."""

    stem: Any
    """The timm ViT without its blocks."""

    def __init__(self, vit: VisionTransformer) -> None:
        super().__init__()
        blocks = list(vit.blocks)
        self.layers = nn.ModuleList(Quarter(blocks[start:stop]) for start, stop in pairwise(bounds(len(blocks))))
        vit.blocks, vit.norm, vit.fc_norm, vit.head = nn.Sequential(), nn.Identity(), nn.Identity(), nn.Identity()
        vit.attn_pool = None
        self.stem = vit
        self.patch = int(vit.patch_embed.patch_size[0])
        self.feature_info = [{"num_chs": vit.embed_dim} for _ in range(QUARTERS)]

    def tokens(self, image_B3HW: Tensor) -> Tensor:
        """Patches with their positions, class and register tokens before them: (B, N, C)."""
        tokens: Tensor = self.stem.norm_pre(self.stem._pos_embed(self.stem.patch_embed(image_B3HW)))
        return tokens

    def grid(self, tokens: Tensor, size: tuple[int, int]) -> Tensor:
        """(T, B, N, C) without class and register tokens -> (T, B, C, H', W') at the patch's stride."""
        height, width = size[0] // self.patch, size[1] // self.patch
        patches = tokens[:, :, self.stem.num_prefix_tokens :]
        maps: Tensor = patches.unflatten(2, (height, width)).movedim(-1, 2)
        return maps


class MultiTaskViT(MultiTaskModel):
    """image -> {task: prediction} over a `QuarteredViT`."""

    def levels(self, image_B3HW: Tensor) -> list[Level]:
        """Each quarter's map, (T or 1, B, H', W', C), resized to strides 8, 16, 32, 32 if merged, else 4, 8, 16, 32."""
        size = (image_B3HW.shape[-2], image_B3HW.shape[-1])
        x: Any
        x, added = self.first_tokens(image_B3HW)
        pyramid: list[Level] = []
        for quarter, stride in zip(self.backbone.layers, STRIDES[self.merged], strict=True):
            x, streams = run_blocks(quarter.blocks, x)
            maps = self.backbone.grid(streams[:, :, added:], size)
            wanted = (-(-size[0] // stride), -(-size[1] // stride))
            coarser = stride > self.backbone.patch
            resized = F.interpolate(maps.flatten(0, 1), size=wanted, mode="bilinear", antialias=coarser)
            pyramid.append(Level(resized.unflatten(0, maps.shape[:2]).movedim(2, -1)))
        return pyramid

    def first_tokens(self, image_B3HW: Tensor) -> tuple[Tensor, int]:
        """What goes into the first block, (B, N, C), and how many tokens at the front are not the backbone's."""
        return self.backbone.tokens(image_B3HW), 0


class TokenViT(MultiTaskViT):
    """The same with the tasks' tokens before all others, in all blocks (Free Sinewich)."""

    def first_tokens(self, image_B3HW: Tensor) -> tuple[Tensor, int]:
        """Tokens of tasks have no positions."""
        assert isinstance(self.prompts, TaskTokens)
        x = self.backbone.tokens(image_B3HW)
        tokens = self.prompts.first(len(x))
        return torch.cat([tokens.to(x.dtype), x], 1), tokens.shape[1]


def run_blocks(blocks: Sequence[nn.Module], x: Tensor) -> tuple[Tensor | None, Tensor]:
    """All blocks of a stage: the shared stream (None where it ends) and the streams of the tasks."""
    for block in blocks:
        if isinstance(block, ViTTaskBlock):
            x, streams = block(x)
            return x, streams
        x = block(x)
    return x, x[None]
