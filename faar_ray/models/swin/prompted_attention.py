"""Attention inside windows that hold the prompts of all tasks beside their tokens (TADFormer).

Axes: T tasks, B batch, L tokens, C channels, H W space, G windows of all images, n tokens of a window, N = T + n,
h heads, d channels of a head.
"""

from __future__ import annotations

import torch
import torch.nn.functional as F
from timm.models.swin_transformer import SwinTransformerBlock, window_partition, window_reverse
from torch import Tensor

from faar_ray.models.swin.token_layout import Layout


def to_windows(block: SwinTransformerBlock, x_BLC: Tensor, layout: Layout) -> Tensor:
    """(B, L, C) -> (G, n, C), with zeros where windows reach beyond the grid."""
    (h, w), shift = block.window_size, block.shift_size
    if layout.tile == (h, w):
        return x_BLC.reshape(-1, h * w, x_BLC.shape[-1])
    x = x_BLC.unflatten(1, (layout.height, layout.width)).roll((-shift[0], -shift[1]), (1, 2))
    windows: Tensor = window_partition(F.pad(x, (0, 0, 0, -layout.width % w, 0, -layout.height % h)), (h, w))
    return windows.flatten(1, 2)


def from_windows(block: SwinTransformerBlock, x: Tensor, layout: Layout) -> Tensor:
    """(..., G, n, C) -> (..., B, L, C), undoing `to_windows`."""
    (h, w), shift, channels = block.window_size, block.shift_size, x.shape[-1]
    height, width = layout.height, layout.width
    if layout.tile == (h, w):
        return x.reshape(*x.shape[:-3], -1, height * width, channels)
    padded = (height + -height % h, width + -width % w)
    grid: Tensor = window_reverse(x.reshape(-1, h, w, channels), (h, w), *padded)[:, :height, :width]
    return grid.roll(tuple(shift), (1, 2)).reshape(*x.shape[:-3], -1, height * width, channels)


def attend(block: SwinTransformerBlock, x_BLC: Tensor, prompts_BTC: Tensor, layout: Layout) -> tuple[Tensor, Tensor]:
    """What goes into the output projection, (G, N, C), prompts first, and each task's map over a window, (T, G, n, h).

    Relative positions and the mask of shifted windows act between tokens alone: prompts see and are seen by all. A map
    is GELU(q k^T) of a prompt and the tokens, unscaled and before the softmax.
    """
    attn, tasks = block.attn, prompts_BTC.shape[1]
    windows = to_windows(block, block.norm1(x_BLC), layout)
    prompts = block.norm1(prompts_BTC).repeat_interleave(len(windows) // len(x_BLC), 0)
    qkv = attn.qkv(torch.cat([prompts.to(windows.dtype), windows], 1))
    q, k, v = qkv.unflatten(-1, (3, attn.num_heads, -1)).permute(2, 0, 3, 1, 4).unbind(0)

    raw = q @ k.transpose(-1, -2)
    bias = attn._get_rel_pos_bias()
    if block.attn_mask is not None:
        bias = bias + block.attn_mask[:, None]
    scores = raw * attn.scale
    scores = (scores.unflatten(0, (-1, len(bias))) + F.pad(bias, (tasks, 0, tasks, 0))).flatten(0, 1)
    mixed = (scores.softmax(-1).to(v.dtype) @ v).transpose(1, 2).flatten(2)
    return mixed, F.gelu(raw[:, :, :tasks, tasks:]).permute(2, 0, 3, 1)


def focused(maps_TGnh: Tensor, y_GnC: Tensor) -> Tensor:
    """Each task's map over the channels of its heads: (T, G, n, C)."""
    heads: Tensor = y_GnC.unflatten(-1, (maps_TGnh.shape[-1], -1))
    return (maps_TGnh[..., None] * heads).flatten(-2)


def scrambled(focus_TGnC: Tensor) -> Tensor:
    """The same numbers laid out as (C, n) and read as (n, C), as TADFormer's release does."""
    return focus_TGnC.transpose(-1, -2).contiguous().view_as(focus_TGnC)
