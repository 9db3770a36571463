"""A low-rank update of a frozen weight as plain tensors, and what the custom products of this package share.

Axes: N tokens, R active components, I in, O out.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

CHUNK = 2**18
"""Elements in a chunk of a columnwise dot product: the chunk stays in the processor's cache."""

Gradients = tuple[Tensor, Tensor, Tensor | None]
"""Of A_RI, B_RO, m_O."""


@dataclass(frozen=True, slots=True, eq=False)
class LowRankUpdate:
    """W' = m V / ||V|| with V = W + s B A (DoRA), or V itself where m is None (LoRA)."""

    A_RI: Tensor
    B_RO: Tensor
    m_O: Tensor | None
    scale: float
    detached: bool = True
    """The norm is a constant to the gradient."""

    def direction(self, weight_OI: Tensor) -> Tensor:
        """V, (O, I)."""
        return torch.addmm(weight_OI, self.B_RO.t(), self.A_RI, alpha=self.scale)

    def merge(self, weight_OI: Tensor) -> tuple[Tensor, Tensor | None, Tensor | None]:
        """W', the gain m / ||V|| and the norm ||V|| (both None for LoRA)."""
        V_OI = self.direction(weight_OI)
        if self.m_O is None:
            return V_OI, None, None
        norm_O = torch.linalg.vector_norm(V_OI, dim=1).clamp_min_(torch.finfo(V_OI.dtype).tiny)
        gain_O = self.m_O / norm_O
        return V_OI.mul_(gain_O[:, None]), gain_O, norm_O


def packed(updates: Sequence[LowRankUpdate | None]) -> list[Any]:
    """Five values per update: `Function.apply` sees tensors only at its top level."""
    none = (None, None, None, 1.0, True)
    return [v for c in updates for v in (none if c is None else (c.A_RI, c.B_RO, c.m_O, c.scale, c.detached))]


def unpacked(values: Sequence[Any]) -> list[LowRankUpdate | None]:
    """Undo `packed`."""
    return [None if values[i] is None else LowRankUpdate(*values[i : i + 5]) for i in range(0, len(values), 5)]


def static_fields(updates: Sequence[LowRankUpdate | None]) -> list[tuple[float, bool]]:
    """The fields of updates that are no tensors: scale, and whether the norm is detached."""
    return [(1.0, True) if c is None else (c.scale, c.detached) for c in updates]


def restored(tensors: Sequence[Any], fields: Sequence[tuple[float, bool]]) -> list[LowRankUpdate | None]:
    """Changes from the tensors that went through `save_for_backward`, three per update."""
    triples = [tensors[i : i + 3] for i in range(0, len(tensors), 3)]
    pairs = zip(triples, fields, strict=True)
    return [None if A is None else LowRankUpdate(A, B, m, scale, detached) for (A, B, m), (scale, detached) in pairs]


def product_dtype(x: Tensor) -> torch.dtype:
    """The dtype of products under autocast, else that of x; weights are always merged in their own precision."""
    kind = x.device.type
    return torch.get_autocast_dtype(kind) if torch.is_autocast_enabled(kind) else x.dtype


def column_dots(g_NO: Tensor, y_NO: Tensor, bias_O: Tensor | None, dtype: torch.dtype) -> Tensor:
    """sum_n g (y - b), (O,), by chunks of rows: no temporary of the size of y in a wider dtype."""
    rows = max(1, CHUNK // g_NO.shape[1])
    total_O = torch.zeros(g_NO.shape[1], dtype=dtype, device=g_NO.device)
    for g, y in zip(g_NO.split(rows), y_NO.split(rows), strict=True):
        shifted = y.to(dtype) if bias_O is None else y.to(dtype) - bias_O
        total_O += (shifted * g).sum(0)
    return total_O


def add_norm_gradient(update: LowRankUpdate, weight_OI: Tensor, q_O: Tensor, gA_RI: Tensor, gB_RO: Tensor) -> None:
    """Add the gradient through an attached norm: dL/dV -= q V, with q = c dL/dm / ||V||.

    V is not formed: V A^T and B V are products over the components.
    """
    if update.detached:
        return
    A_RI, s = update.A_RI, update.scale
    gB_RO -= s * q_O * torch.addmm(A_RI @ weight_OI.t(), A_RI @ A_RI.t(), update.B_RO, alpha=s)
    Bq_RO = update.B_RO * q_O
    gA_RI -= s * torch.addmm(Bq_RO @ weight_OI, Bq_RO @ update.B_RO.t(), A_RI, alpha=s)
