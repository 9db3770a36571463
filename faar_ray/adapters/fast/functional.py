"""Linear maps under low-rank updates, by the cheapest exact form (the step is bound by matrix products).

`adapt` of the adapters in plain autograd is the independent reference for everything here.

Axes: S streams in (1 or K), K updates (one output stream each), N tokens, R active components, I in, O out.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
import torch.nn.functional as F
from torch import Tensor

from faar_ray.adapters.fast.low_rank_update import LowRankUpdate, packed
from faar_ray.adapters.fast.merged import MergedProduct
from faar_ray.adapters.fast.shared_input import SharedInputProduct


def merged_products(
    x_SNI: Tensor, weight_OI: Tensor, bias_O: Tensor | None, updates: Sequence[LowRankUpdate | None]
) -> Tensor:
    """y_k = W'_k x_k + b, (K, N, O); with S = 1 all k share a stream; None stands for the frozen weight itself."""
    if len(x_SNI) == 1 and len(updates) > 1 and shared_input_pays(weight_OI, updates):
        return shared_input_products(x_SNI, 0, weight_OI, bias_O, updates)
    y_KNO: Tensor = MergedProduct.apply(x_SNI, weight_OI, bias_O, *packed(updates))
    return y_KNO


def shared_input_products(
    x_SNI: Tensor, n_on_shared: int, weight_OI: Tensor, bias_O: Tensor | None, updates: Sequence[LowRankUpdate | None]
) -> Tensor:
    """y_k = c_k (W x_0 + s B_k A_k x_k) + b with c_k = m_k / ||V_k||, (K, N, O): W sees the shared stream x_0 only.

    The first `n_on_shared` updates take the shared stream, the others x_1, x_2, ...; with S = 2 they all take x_1,
    with S = 1 x_0, and then y_k = W'_k x_0 + b exactly.
    """
    y_KNO: Tensor = SharedInputProduct.apply(x_SNI, n_on_shared, weight_OI, bias_O, *packed(updates))
    return y_KNO


def dropped_products(
    x_SNI: Tensor,
    dropped_SNI: Tensor,
    weight_OI: Tensor,
    bias_O: Tensor | None,
    updates: Sequence[LowRankUpdate | None],
) -> Tensor:
    """y_k = W x_k + b + (W'_k - W) d(x_k), (K, N, O), for given d(x).

    LoRA on one stream is W x + s B_k A_k d(x). Else W'_k d(x_k) + W (x_k - d(x_k)): a frozen product more than without
    dropout.
    """
    if len(x_SNI) == 1 and all(update is None or update.m_O is None for update in updates):
        return shared_input_products(torch.cat([x_SNI, dropped_SNI]), 0, weight_OI, bias_O, updates)
    return merged_products(dropped_SNI, weight_OI, bias_O, updates) + F.linear(x_SNI - dropped_SNI, weight_OI)


def shared_input_pays(weight_OI: Tensor, updates: Sequence[LowRankUpdate | None]) -> bool:
    """Whether one W x plus skinny products beats a merged product per update."""
    outs, ins = weight_OI.shape
    merged = shared = 0.0
    for rank in (0 if update is None else len(update.A_RI) for update in updates):
        merged += 2 * ins * outs + min(ins * outs, 2 * rank * (ins + outs) + 16 * outs)
        shared += 3 * rank * (ins + outs) + 32 * outs
    return shared + 2 * ins * outs < 0.7 * merged
