"""Attention inside the windows of a Swin block, up to, not including, its output projection.

Axes: B batch, L tokens, C channels, H W space, G windows of all images, n tokens of a window, h heads, d channels of
a head.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
import torch.nn.functional as F
from timm.models.swin_transformer import SwinTransformerBlock, window_partition, window_reverse
from torch import Tensor
from torch.autograd import Function
from torch.autograd.function import once_differentiable

from faar_ray.models.swin.token_layout import Layout

Linear = Callable[[Tensor], Tensor]


def attend(block: SwinTransformerBlock, x_BLC: Tensor, qkv: Linear, layout: Layout) -> Tensor:
    """(B, L, C) -> (B', L, C), tokens as they came: window by window, or plain where windows have to be padded.

    `qkv` sees windows, (G, n, C) -> (G', n, 3C); B' is larger than B where it is task-specific. The projection that
    follows works per token, so tasks may share what this gives.
    """
    if layout.tile == tuple(block.window_size):
        tokens, channels = x_BLC.shape[1:]
        windows = x_BLC.reshape(-1, layout.tile[0] * layout.tile[1], channels)
        return mix(block, qkv(windows)).view(-1, tokens, channels)
    return _attend_padded(block, x_BLC.unflatten(1, (layout.height, layout.width)), qkv).flatten(1, 2)


def _attend_padded(block: SwinTransformerBlock, x_BHWC: Tensor, qkv: Linear) -> Tensor:
    (height, width), window, shift = x_BHWC.shape[1:3], block.window_size, block.shift_size
    x = torch.roll(x_BHWC, shifts=(-shift[0], -shift[1]), dims=(1, 2)) if any(shift) else x_BHWC
    x = F.pad(x, (0, 0, 0, -width % window[1], 0, -height % window[0]))
    padded = x.shape[1:3]
    mixed = mix(block, qkv(window_partition(x, window).flatten(1, 2)))
    grid: Tensor = window_reverse(mixed.unflatten(1, window), window, *padded)[:, :height, :width]
    return torch.roll(grid, shifts=shift, dims=(1, 2)) if any(shift) else grid


def mix(block: SwinTransformerBlock, qkv_Gn: Tensor) -> Tensor:
    """Attention with relative-position bias, (G, n, 3C) -> (G, n, C)."""
    attn = block.attn
    bias = attn._get_rel_pos_bias()
    if block.attn_mask is not None:
        bias = bias + block.attn_mask[:, None]
    if qkv_Gn.device.type == "cpu" and not torch.compiler.is_compiling():
        mixed: Tensor = _Attention.apply(qkv_Gn, bias, attn.num_heads)
        return mixed
    windows, tokens, _ = qkv_Gn.shape
    q, k, v = qkv_Gn.view(windows, tokens, 3, attn.num_heads, -1).permute(2, 0, 3, 1, 4).unbind(0)
    repeated = bias.repeat(windows // len(bias), 1, 1, 1).to(q.dtype)
    return F.scaled_dot_product_attention(q, k, v, attn_mask=repeated).transpose(1, 2).flatten(2)


class _Attention(Function):
    """softmax(q k^T / sqrt d + bias) v; keeps the weights, which are small in windows, and never repeats the bias."""

    @staticmethod
    def forward(ctx: Any, qkv_Gn: Tensor, bias_Whnn: Tensor, heads: int) -> Tensor:
        windows, tokens, channels = qkv_Gn.shape[0], qkv_Gn.shape[1], qkv_Gn.shape[2] // 3
        with torch.autocast(qkv_Gn.device.type, enabled=False):
            q, k, v = _by_head(qkv_Gn, heads)
            scores = qkv_Gn.new_empty(windows // len(bias_Whnn), *bias_Whnn.shape).copy_(bias_Whnn)
            scores = scores.view(windows * heads, tokens, tokens)
            weights = scores.baddbmm_(q, k.transpose(1, 2), alpha=q.shape[-1] ** -0.5).softmax(-1)
            mixed = torch.bmm(weights, v).view(windows, heads, tokens, -1)
        ctx.save_for_backward(qkv_Gn, weights)
        ctx.bias = bias_Whnn.shape, bias_Whnn.dtype
        return mixed.transpose(1, 2).reshape(windows, tokens, channels)

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, g_Gn: Tensor) -> tuple[Tensor, Tensor | None, None]:
        qkv_Gn, weights = ctx.saved_tensors
        (masks, heads, tokens, _), dtype = ctx.bias
        windows = len(qkv_Gn)
        q, k, v = _by_head(qkv_Gn, heads)
        with torch.autocast(g_Gn.device.type, enabled=False):
            g = g_Gn.view(windows, tokens, heads, -1).transpose(1, 2).reshape(len(q), tokens, -1)
            gq, gk, gv = gradients = g.new_empty(3, *q.shape)
            torch.bmm(weights.transpose(1, 2), g, out=gv)
            g_weights = torch.bmm(g, v.transpose(1, 2))
            g_scores = torch._softmax_backward_data(g_weights, weights, -1, weights.dtype)
            g_bias = None
            if ctx.needs_input_grad[1]:
                g_bias = g_scores.view(-1, masks, heads, tokens, tokens).sum(0, dtype=dtype)
            g_scores.mul_(q.shape[-1] ** -0.5)
            torch.bmm(g_scores, k, out=gq)
            torch.bmm(g_scores.transpose(1, 2), q, out=gk)
        g_qkv = gradients.view(3, windows, heads, tokens, -1).permute(1, 3, 0, 2, 4).reshape(windows, tokens, -1)
        return g_qkv, g_bias, None


def _by_head(qkv_Gn: Tensor, heads: int) -> tuple[Tensor, ...]:
    """(G, n, 3C) -> queries, keys and values (G h, n, d), each a block of memory."""
    windows, tokens, _ = qkv_Gn.shape
    split = qkv_Gn.view(windows, tokens, 3, heads, -1).permute(2, 0, 3, 1, 4)
    return split.reshape(3, windows * heads, tokens, -1).unbind(0)
