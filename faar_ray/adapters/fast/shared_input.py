"""Products that share one frozen product, y_k = c_k (W x + s B_k A_k x_k) + b (MTLoRA's task path with DoRA's gain).

The frozen weight sees one common stream, so a change costs its own components only.

Axes: S streams in (the common one first), K changes (one output stream each), N tokens, R active components, I in,
O out.
"""

from __future__ import annotations

from collections.abc import Sequence
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


class SharedInputProduct(Function):
    """y_k = c_k (P + s h_k B_k) + b with P = W x_0 and h_k = A_k x_k."""

    @staticmethod
    def forward(ctx: Any, x_SNI: Tensor, ahead: int, weight_OI: Tensor, bias_O: Tensor | None, *values: Any) -> Tensor:
        """(S, N, I) -> (K, N, O); `values` are `packed` changes, the first `ahead` of them on the common stream x_0."""
        dtype, changes = product_dtype(x_SNI), unpacked(values)
        ctx.streams = [0 if len(x_SNI) == 1 or k < ahead else 1 + k - ahead for k in range(len(changes))]
        with torch.autocast(x_SNI.device.type, enabled=False):
            x = x_SNI.to(dtype)
            P_NO = x[0] @ weight_OI.to(dtype).t()
            shift_O = P_NO.new_zeros(len(weight_OI)) if bias_O is None else bias_O.to(dtype)
            y_KNO = P_NO.new_empty(len(changes), *P_NO.shape)
            kept: list[Tensor | None] = []
            for k, change in enumerate(changes):
                kept += _forward_one(change, x[ctx.streams[k]], P_NO, weight_OI, shift_O, out=y_KNO[k])
        ctx.settings, ctx.x_dtype = static_fields(changes), x_SNI.dtype
        factors = [tensor for i, tensor in enumerate(values) if i % 5 < 3]
        ctx.save_for_backward(x, weight_OI, P_NO, *factors, *kept)
        return y_KNO

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, g_KNO: Tensor) -> tuple[Any, ...]:
        """(K, N, O) -> gradients of the streams, A, B and m."""
        x_SNI, weight_OI, P_NO, *rest = ctx.saved_tensors
        half = len(rest) // 2
        changes, kept = restored(rest[:half], ctx.settings), rest[half:]
        gradients: list[Any] = []
        with torch.autocast(g_KNO.device.type, enabled=False):
            gx_SNI = torch.empty_like(x_SNI)
            gP_NO = _weighted_sum(g_KNO, kept[1::3])
            torch.mm(gP_NO, weight_OI.to(gP_NO.dtype), out=gx_SNI[0])
            for change, stream, g, (h_NR, gain_O, norm_O) in zip(
                changes, ctx.streams, g_KNO, zip(kept[::3], kept[1::3], kept[2::3], strict=True), strict=True
            ):
                if change is None:
                    gradients += [None] * 5
                    if stream > 0:
                        gx_SNI[stream].zero_()
                    continue
                gh_NR, A_RI = g @ _scaled(change, gain_O).to(g.dtype).t(), change.A_RI.to(g.dtype)
                if stream == 0:
                    gx_SNI[0].addmm_(gh_NR, A_RI)
                else:
                    torch.mm(gh_NR, A_RI, out=gx_SNI[stream])
                of_factors = _factor_gradients(change, h_NR, gh_NR, x_SNI[stream], g, P_NO, weight_OI, gain_O, norm_O)
                gradients += [*of_factors, None, None]
        return (gx_SNI.to(ctx.x_dtype), None, None, None, *gradients)


def _weighted_sum(g_KNO: Tensor, gains: Sequence[Tensor | None]) -> Tensor:
    """sum_k c_k g_k, (N, O): the gradient of P."""
    total_NO: Tensor | None = None
    for g, gain_O in zip(g_KNO, gains, strict=True):
        if total_NO is None:
            total_NO = g.clone() if gain_O is None else g * gain_O.to(g.dtype)
        else:
            total_NO = total_NO.add_(g) if gain_O is None else total_NO.addcmul_(g, gain_O.to(g.dtype))
    assert total_NO is not None
    return total_NO


def _scaled(change: LowRankUpdate, gain_O: Tensor | None) -> Tensor:
    return change.B_RO * (change.scale if gain_O is None else gain_O * change.scale)


def _forward_one(
    change: LowRankUpdate | None, x_NI: Tensor, P_NO: Tensor, weight_OI: Tensor, shift_O: Tensor, out: Tensor
) -> list[Tensor | None]:
    """Write c (P + s h B) + b into `out`; returns h, the gain c and the norm."""
    if change is None:
        torch.add(P_NO, shift_O, out=out)
        return [None, None, None]
    _, gain_O, norm_O = (None, None, None) if change.m_O is None else change.merge(weight_OI)
    h_NR = x_NI @ change.A_RI.to(x_NI.dtype).t()
    if gain_O is None:
        torch.add(P_NO, shift_O, out=out)
    else:
        torch.addcmul(shift_O, P_NO, gain_O.to(P_NO.dtype), out=out)
    out.addmm_(h_NR, _scaled(change, gain_O).to(h_NR.dtype))
    return [h_NR, gain_O, norm_O]


def _factor_gradients(
    change: LowRankUpdate,
    h_NR: Tensor,
    gh_NR: Tensor,
    x_NI: Tensor,
    g_NO: Tensor,
    P_NO: Tensor,
    weight_OI: Tensor,
    gain_O: Tensor | None,
    norm_O: Tensor | None,
) -> Gradients:
    full = change.A_RI.dtype
    gA_RI = (gh_NR.t() @ x_NI).to(full)
    AG_RO = (h_NR.t() @ g_NO).to(full)
    if gain_O is None or norm_O is None:
        return gA_RI, AG_RO.mul_(change.scale), None
    gm_O = (column_dots(g_NO, P_NO, None, full) + change.scale * (change.B_RO * AG_RO).sum(0)) / norm_O
    gB_RO = AG_RO.mul_(gain_O * change.scale)
    add_norm_gradient(change, weight_OI, gain_O * gm_O / norm_O, gA_RI, gB_RO)
    return gA_RI, gB_RO, gm_O
