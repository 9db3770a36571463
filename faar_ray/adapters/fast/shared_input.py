"""Products that share one frozen product, y_k = c_k (W x + s B_k A_k x_k) + b (MTLoRA's task path with DoRA's gain).

The frozen weight sees the shared stream only: W x is computed once, and an update costs the products of its components.

Axes: S streams in (the shared one first), K updates (one output stream each), N tokens, R active components, I in,
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
    def forward(
        ctx: Any, x_SNI: Tensor, n_on_shared: int, weight_OI: Tensor, bias_O: Tensor | None, *values: Any
    ) -> Tensor:
        """(S, N, I) -> (K, N, O); `values` are `packed` updates, the first `n_on_shared` of them on x_0."""
        dtype, updates = product_dtype(x_SNI), unpacked(values)
        last = len(x_SNI) - 1
        ctx.streams = [0 if k < n_on_shared else min(1 + k - n_on_shared, last) for k in range(len(updates))]

        with torch.autocast(x_SNI.device.type, enabled=False):
            x = x_SNI.to(dtype)
            P_NO = x[0] @ weight_OI.to(dtype).t()
            shift_O = P_NO.new_zeros(len(weight_OI)) if bias_O is None else bias_O.to(dtype)
            y_KNO = P_NO.new_empty(len(updates), *P_NO.shape)
            saved: list[Tensor | None] = []
            for k, update in enumerate(updates):
                saved += _forward_one(update, x[ctx.streams[k]], P_NO, weight_OI, shift_O, out=y_KNO[k])

        # P, h, gain and norm are saved, so backward repeats no product; y is not read there, and not saved
        ctx.static_fields, ctx.x_dtype = static_fields(updates), x_SNI.dtype
        factors = [tensor for i, tensor in enumerate(values) if i % 5 < 3]
        ctx.save_for_backward(x, weight_OI, P_NO, *factors, *saved)
        return y_KNO

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, g_KNO: Tensor) -> tuple[Any, ...]:
        """(K, N, O) -> gradients of the streams, A, B and m."""
        x_SNI, weight_OI, P_NO, *rest = ctx.saved_tensors
        half = len(rest) // 2
        updates, saved = restored(rest[:half], ctx.static_fields), rest[half:]

        gradients: list[Any] = []
        with torch.autocast(g_KNO.device.type, enabled=False):
            gx_SNI = torch.empty_like(x_SNI)
            # the gradient of P is summed over all outputs first: one product with W instead of K
            gP_NO = _weighted_sum(g_KNO, saved[1::3])
            torch.mm(gP_NO, weight_OI.to(gP_NO.dtype), out=gx_SNI[0])
            written = {0}

            for update, stream, g, (h_NR, gain_O, norm_O) in zip(
                updates, ctx.streams, g_KNO, zip(saved[::3], saved[1::3], saved[2::3], strict=True), strict=True
            ):
                if update is None:
                    gradients += [None] * 5
                    if stream not in written:  # its output was P alone
                        gx_SNI[stream].zero_()
                        written.add(stream)
                    continue

                gh_NR, A_RI = g @ _scaled(update, gain_O).to(g.dtype).t(), update.A_RI.to(g.dtype)
                if stream in written:
                    gx_SNI[stream].addmm_(gh_NR, A_RI)
                else:
                    torch.mm(gh_NR, A_RI, out=gx_SNI[stream])
                    written.add(stream)
                of_factors = _factor_gradients(update, h_NR, gh_NR, x_SNI[stream], g, P_NO, weight_OI, gain_O, norm_O)
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


def _scaled(update: LowRankUpdate, gain_O: Tensor | None) -> Tensor:
    """s c B^T, (R, O)."""
    return update.B_RO * (update.scale if gain_O is None else gain_O * update.scale)


def _forward_one(
    update: LowRankUpdate | None, x_NI: Tensor, P_NO: Tensor, weight_OI: Tensor, shift_O: Tensor, out: Tensor
) -> list[Tensor | None]:
    """Write c (P + s h B) + b into `out`; returns h, the gain c and the norm."""
    if update is None:
        torch.add(P_NO, shift_O, out=out)
        return [None, None, None]

    # DoRA's norm needs the merged weight, which is dropped again: the product goes by the components
    _, gain_O, norm_O = (None, None, None) if update.m_O is None else update.merge(weight_OI)
    h_NR = x_NI @ update.A_RI.to(x_NI.dtype).t()
    if gain_O is None:
        torch.add(P_NO, shift_O, out=out)
    else:
        torch.addcmul(shift_O, P_NO, gain_O.to(P_NO.dtype), out=out)
    out.addmm_(h_NR, _scaled(update, gain_O).to(h_NR.dtype))
    return [h_NR, gain_O, norm_O]


def _factor_gradients(
    update: LowRankUpdate,
    h_NR: Tensor,
    gh_NR: Tensor,
    x_NI: Tensor,
    g_NO: Tensor,
    P_NO: Tensor,
    weight_OI: Tensor,
    gain_O: Tensor | None,
    norm_O: Tensor | None,
) -> Gradients:
    """Gradients by the components alone; G = g^T x, (O, I), is never formed."""
    full = update.A_RI.dtype
    gA_RI = (gh_NR.t() @ x_NI).to(full)
    AG_RO = (h_NR.t() @ g_NO).to(full)
    if gain_O is None or norm_O is None:
        return gA_RI, AG_RO.mul_(update.scale), None

    # dL/dm = <g, V x> / ||V||, with V x = P + s h B split, as y / m is not defined at m = 0
    gm_O = (column_dots(g_NO, P_NO, None, full) + update.scale * (update.B_RO * AG_RO).sum(0)) / norm_O
    gB_RO = AG_RO.mul_(gain_O * update.scale)
    add_norm_gradient(update, weight_OI, gain_O * gm_O / norm_O, gA_RI, gB_RO)
    return gA_RI, gB_RO, gm_O
