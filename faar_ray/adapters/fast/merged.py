"""Products with merged weights, y_k = W'_k x_k + b, with the cheaper of two forms of the backward pass.

Forward takes the merged weight: its row norm needs it anyway, and then a stream costs one matrix product and no
extra activation. Backward picks, per update and per prefix b, between the full weight gradient G = g^T x and
products with the b components alone.

Axes: S streams in (1 or K), K updates (one output stream each), N tokens, R active components, I in, O out.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

import torch
from torch import Tensor
from torch.autograd import Function
from torch.autograd.function import once_differentiable

from faar_ray.adapters.fast.low_rank_update import (
    Gradients,
    LowRankUpdate,
    add_norm_gradient,
    column_dots,
    product_dtype,
    restored,
    static_fields,
    unpacked,
)

SMALL_GAIN = 1e-2
"""Below this |m| / ||V|| the gradient of m is computed without dividing by m."""


def skinny_pays(rank: int, weight_OI: Tensor) -> bool:
    """Whether gradients by the components alone are cheaper than by G = g^T x (measured on CPU).

    The skinny form has to look at m's gradient row by row, which would stall an accelerator.
    """
    outs, ins = weight_OI.shape
    return weight_OI.device.type == "cpu" and 2 * rank * (ins + outs) + 16 * outs < 0.7 * ins * outs


def remerging_pays(rank: int, tokens: int) -> bool:
    """Whether backward forms the merged weight anew, at 1.5% of the product's cost at most, so that it is not kept."""
    return 64 * (rank + 16) < tokens


class MergedProduct(Function):
    """y_k = W'_k x_k + b."""

    @staticmethod
    def forward(ctx: Any, x_SNI: Tensor, weight_OI: Tensor, bias_O: Tensor | None, *values: Any) -> Tensor:
        """(S, N, I) -> (K, N, O); `values` are `packed` updates."""
        dtype, updates = product_dtype(x_SNI), unpacked(values)

        with torch.autocast(x_SNI.device.type, enabled=False):
            x = x_SNI.to(dtype)
            y_KNO = x.new_empty(len(updates), x.shape[1], len(weight_OI))
            skinny = [c is not None and skinny_pays(len(c.A_RI), weight_OI) for c in updates]
            merged: list[Tensor | None] = []
            for k, update in enumerate(updates):
                W_OI, gain_O, norm_O = (weight_OI, None, None) if update is None else update.merge(weight_OI)
                W_OI = W_OI.to(dtype)
                _affine(x[k if len(x) > 1 else 0], W_OI, bias_O, out=y_KNO[k])
                formed_anew = update is not None and skinny[k] and remerging_pays(len(update.A_RI), x.shape[1])
                merged += [None if formed_anew else W_OI, gain_O, norm_O]

        # the skinny form reads V x from y, which is saved for it; the merged weights serve dL/dx
        ctx.static_fields, ctx.x_dtype, ctx.skinny = static_fields(updates), x_SNI.dtype, skinny
        reads_y = any(s and c is not None and c.m_O is not None for s, c in zip(ctx.skinny, updates, strict=True))
        factors = [tensor for i, tensor in enumerate(values) if i % 5 < 3]
        ctx.save_for_backward(x, weight_OI, bias_O, y_KNO if reads_y else None, *factors, *merged)
        return y_KNO

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, g_KNO: Tensor) -> tuple[Any, ...]:
        """(K, N, O) -> gradients of x, A, B and m."""
        x_SNI, weight_OI, bias_O, y_KNO, *rest = ctx.saved_tensors
        half = len(rest) // 2
        updates, merged = restored(rest[:half], ctx.static_fields), rest[half:]

        gradients: list[Any] = []
        with torch.autocast(g_KNO.device.type, enabled=False):
            weights = (
                _weight(update, weight_OI, merged[3 * k], merged[3 * k + 1], x_SNI.dtype)
                for k, update in enumerate(updates)
            )
            gx = _input_gradient(g_KNO, weights, x_SNI) if ctx.needs_input_grad[0] else None
            for k, update in enumerate(updates):
                x, g, (gain_O, norm_O) = x_SNI[k if len(x_SNI) > 1 else 0], g_KNO[k], merged[3 * k + 1 : 3 * k + 3]
                if update is None:
                    gradients += [None] * 5
                elif ctx.skinny[k]:
                    y = None if y_KNO is None else y_KNO[k]
                    gradients += (*_skinny_gradients(update, x, g, y, weight_OI, bias_O, gain_O, norm_O), None, None)
                else:
                    gradients += (*_full_gradients(update, x, g, weight_OI, gain_O, norm_O), None, None)

        return (None if gx is None else gx.to(ctx.x_dtype), None, None, *gradients)


def _affine(x_NI: Tensor, weight_OI: Tensor, bias_O: Tensor | None, out: Tensor) -> None:
    if bias_O is None:
        torch.mm(x_NI, weight_OI.t(), out=out)
    else:
        torch.addmm(bias_O.to(x_NI.dtype), x_NI, weight_OI.t(), out=out)


def _weight(
    update: LowRankUpdate | None, weight_OI: Tensor, merged_OI: Tensor | None, gain_O: Tensor | None, dtype: torch.dtype
) -> Tensor:
    """The merged weight as forward had it: kept, or formed anew by the same operations."""
    if merged_OI is not None or update is None:
        return weight_OI.to(dtype) if merged_OI is None else merged_OI
    V_OI = update.direction(weight_OI)
    return (V_OI if gain_O is None else V_OI.mul_(gain_O[:, None])).to(dtype)


def _input_gradient(g_KNO: Tensor, weights: Iterable[Tensor], like_SNI: Tensor) -> Tensor:
    """g_k W'_k, summed over k where all share one stream; (S, N, I)."""
    gx_SNI = g_KNO.new_empty(like_SNI.shape)
    for k, W_OI in enumerate(weights):
        if len(gx_SNI) > 1 or k == 0:
            torch.mm(g_KNO[k], W_OI, out=gx_SNI[k])
        else:
            gx_SNI[0].addmm_(g_KNO[k], W_OI)
    return gx_SNI


def _full_gradients(
    update: LowRankUpdate, x_NI: Tensor, g_NO: Tensor, weight_OI: Tensor, gain_O: Tensor | None, norm_O: Tensor | None
) -> Gradients:
    """By the full weight gradient G = g^T x."""
    G_OI = (g_NO.t() @ x_NI).to(weight_OI.dtype)
    AG_RO = update.A_RI @ G_OI.t()
    if gain_O is None or norm_O is None:
        return (update.B_RO @ G_OI).mul_(update.scale), AG_RO.mul_(update.scale), None

    gm_O = ((G_OI * weight_OI).sum(1) + update.scale * (update.B_RO * AG_RO).sum(0)) / norm_O
    gA_RI = ((update.B_RO * gain_O) @ G_OI).mul_(update.scale)
    gB_RO = AG_RO.mul_(gain_O * update.scale)
    add_norm_gradient(update, weight_OI, gain_O * gm_O / norm_O, gA_RI, gB_RO)
    return gA_RI, gB_RO, gm_O


def _skinny_gradients(
    update: LowRankUpdate,
    x_NI: Tensor,
    g_NO: Tensor,
    y_NO: Tensor | None,
    weight_OI: Tensor,
    bias_O: Tensor | None,
    gain_O: Tensor | None,
    norm_O: Tensor | None,
) -> Gradients:
    """By the components alone: 2 N R (I + O) multiplications instead of N I O for G."""
    full = update.A_RI.dtype
    scaled_RO = update.B_RO * update.scale if gain_O is None else update.B_RO * (gain_O * update.scale)
    h_NR = x_NI @ update.A_RI.to(x_NI.dtype).t()
    AG_RO = (h_NR.t() @ g_NO).to(full)
    gA_RI = ((g_NO @ scaled_RO.to(g_NO.dtype).t()).t() @ x_NI).to(full)
    if gain_O is None or norm_O is None or y_NO is None or update.m_O is None:
        return gA_RI, AG_RO.mul_(update.scale), None

    gB_RO = AG_RO.mul_(gain_O * update.scale)
    gm_O = column_dots(g_NO, y_NO, bias_O, full) / update.m_O  # <g, V x> / ||V||, as y - b = m V x / ||V||
    small = (update.m_O.abs() < SMALL_GAIN * norm_O).nonzero().squeeze(1)
    if len(small):  # where m is near 0, y - b is rounded too coarsely to give V x back
        V_PI = torch.addmm(weight_OI[small], update.B_RO[:, small].t(), update.A_RI, alpha=update.scale)
        gm_O[small] = ((g_NO[:, small].t() @ x_NI).to(full) * V_PI).sum(1) / norm_O[small]

    add_norm_gradient(update, weight_OI, gain_O * gm_O / norm_O, gA_RI, gB_RO)
    return gA_RI, gB_RO, gm_O
