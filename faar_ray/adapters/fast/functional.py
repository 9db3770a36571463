"""Linear maps under low-rank changes, by the cheapest exact form (the step is bound by matrix products).

`adapt` of the adapters in plain autograd is the independent reference for everything here.

Axes: S streams in (1 or K), K changes (one output stream each), N tokens, R active components, I in, O out.
"""

from __future__ import annotations

from collections.abc import Sequence

from torch import Tensor

from faar_ray.adapters.fast.low_rank_update import LowRankUpdate, packed
from faar_ray.adapters.fast.merged import MergedProduct
from faar_ray.adapters.fast.shared_input import SharedInputProduct


def merged_products(
    x_SNI: Tensor, weight_OI: Tensor, bias_O: Tensor | None, changes: Sequence[LowRankUpdate | None]
) -> Tensor:
    """y_k = W'_k x_k + b, (K, N, O); with S = 1 all k share a stream; None stands for the frozen weight itself."""
    if len(x_SNI) == 1 and len(changes) > 1 and common_pays(weight_OI, changes):
        return common_products(x_SNI, 0, weight_OI, bias_O, changes)
    y_KNO: Tensor = MergedProduct.apply(x_SNI, weight_OI, bias_O, *packed(changes))
    return y_KNO


def common_products(
    x_SNI: Tensor, ahead: int, weight_OI: Tensor, bias_O: Tensor | None, changes: Sequence[LowRankUpdate | None]
) -> Tensor:
    """y_k = c_k (W x_0 + s B_k A_k x_k) + b with c_k = m_k / ||V_k||, (K, N, O): W sees the common stream x_0 only.

    The first `ahead` changes take the common stream, the others x_1, x_2, ...; with S = 1 all take the common one,
    and then y_k = W'_k x_0 + b exactly.
    """
    y_KNO: Tensor = SharedInputProduct.apply(x_SNI, ahead, weight_OI, bias_O, *packed(changes))
    return y_KNO


def common_pays(weight_OI: Tensor, changes: Sequence[LowRankUpdate | None]) -> bool:
    """Whether one W x plus skinny products beats a merged product per change."""
    outs, ins = weight_OI.shape
    merged = common = 0.0
    for rank in (0 if change is None else len(change.A_RI) for change in changes):
        merged += 2 * ins * outs + min(ins * outs, 2 * rank * (ins + outs) + 16 * outs)
        common += 3 * rank * (ins + outs) + 32 * outs
    return common + 2 * ins * outs < 0.7 * merged
