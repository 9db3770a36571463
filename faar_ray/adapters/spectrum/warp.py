"""DiTASK's adapter: the singular values of a frozen weight, warped by a flow (Mantri et al. 2025).

Axes: L flows, K numbers of a flow, Q blocks of a weight, P singular values, N points, I in, O out.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from contextlib import contextmanager

import torch
from torch import Tensor, nn

from faar_ray.adapters.adapter import Adapter
from faar_ray.adapters.spectrum.cpab_flow import flow
from faar_ray.adapters.spectrum.decomposition import Decomposition, Factors
from faar_ray.config.adapters.spectrum_section import SpectrumConfig


class SpectrumWarp(Adapter):
    """W' = U diag(S') V, with S' a monotone map of S.

    `values`: S'_i = S_1 phi(S_i / S_1), so that the largest value stays. `index`: S'_i is S at position
    phi(i / (P - 1)), by linear interpolation, so that the first and the last stay. Blocks of a weight (queries, keys,
    values) have their own S and one phi.
    """

    drops_whole_input = True

    def __init__(self, decomposition: Decomposition, cells: int, config: SpectrumConfig) -> None:
        super().__init__()
        self._of_linear = (decomposition,)  # in a tuple: the linear holds it
        self.by_index = config.warp == "index"
        self.theta_1K = nn.Parameter(torch.zeros(1, cells - 1))
        if config.init == "uniform":
            nn.init.kaiming_uniform_(self.theta_1K, a=math.sqrt(5))
        self._change_QP: Tensor | None = None

    def adapt(self, weight_OI: Tensor) -> Tensor:
        """W + U diag(S' - S) V, shape (O, I)."""
        factors = self._of_linear[0].factors()
        change_QP = self.spectrum_change() if self._change_QP is None else self._change_QP
        scaled_QOP = factors.U_QOP * change_QP[:, None, :]
        weight_QOI = weight_OI.unflatten(0, (len(scaled_QOP), -1))
        return torch.baddbmm(weight_QOI, scaled_QOP, factors.V_QPI).flatten(0, 1)

    def spectrum_change(self) -> Tensor:
        """S' - S, (Q, P)."""
        factors = self._of_linear[0].factors()
        points_QP = self.points(factors)
        return self.change_by(factors, flow(points_QP.reshape(1, -1), self.theta_1K).view_as(points_QP))

    def points(self, factors: Factors | None = None) -> Tensor:
        """Where phi is evaluated: (Q, P), or (1, P) on the index axis."""
        S_QP = (factors or self._of_linear[0].factors()).S_QP
        if self.by_index:
            return torch.linspace(0, 1, S_QP.shape[1], dtype=S_QP.dtype, device=S_QP.device)[None]
        return S_QP / largest(S_QP)

    def change_by(self, factors: Factors, moved: Tensor) -> Tensor:
        """S' - S from phi at `points`, (Q, P)."""
        S_QP = factors.S_QP
        if not self.by_index:
            return (moved - S_QP / largest(S_QP)) * largest(S_QP)
        last = S_QP.shape[1] - 1
        position_1P = moved * last
        below_1P = position_1P.detach().long().clamp_(0, max(last - 1, 0))
        at, above = below_1P[0], (below_1P[0] + 1).clamp_max(last)
        return torch.lerp(S_QP[:, at], S_QP[:, above], (position_1P - below_1P).expand_as(S_QP)) - S_QP


def largest(S_QP: Tensor) -> Tensor:
    """S_1 of each block, (Q, 1), and no 0."""
    return S_QP[:, :1].clamp_min(torch.finfo(S_QP.dtype).tiny)


def warps_of(model: nn.Module) -> list[SpectrumWarp]:
    """Every adapter of this kind in a model, by site."""
    return sorted((m for m in model.modules() if isinstance(m, SpectrumWarp)), key=lambda warp: warp.site)


@contextmanager
def flows_together(warps: Sequence[SpectrumWarp]) -> Iterator[None]:
    """Within the block the flows of these adapters are computed: together, as they are many and small."""
    for cells in {warp.theta_1K.shape[1] for warp in warps}:
        _flow_at_once([warp for warp in warps if warp.theta_1K.shape[1] == cells])
    try:
        yield
    finally:
        for warp in warps:
            warp._change_QP = None


def _flow_at_once(warps: Sequence[SpectrumWarp]) -> None:
    """One flow per block of a weight; shorter rows are filled up with 0, which no flow moves."""
    with torch.autocast(warps[0].theta_1K.device.type, enabled=False):
        factors = [warp._of_linear[0].factors() for warp in warps]
        points = [warp.points(of) for warp, of in zip(warps, factors, strict=True)]
        theta_LK = torch.cat([w.theta_1K.expand(len(p), -1) for w, p in zip(warps, points, strict=True)])
        rows_LN = nn.utils.rnn.pad_sequence([row for p in points for row in p], batch_first=True)
        moved = flow(rows_LN, theta_LK).split([len(p) for p in points])
        for warp, of, p, moved_QN in zip(warps, factors, points, moved, strict=True):
            warp._change_QP = warp.change_by(of, moved_QN[:, : p.shape[1]])
