"""Coverage: which components are kept (FAAR, K = min{k : c(k) >= rho}). Pure functions; R components of one adapter."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor


@dataclass(frozen=True, slots=True)
class ImportanceScores:
    """Importance scores of one adapter's components."""

    scores_R: Tensor
    """float32 importance; meaningless where not observed."""
    observed_R: Tensor
    """bool: at least one step could score the component."""
    dropped: float = 0.0
    """Sum of the scores of components that are dropped already, where coverage counts them."""

    def order(self) -> Tensor:
        """Component indices: observed ones by descending score (ties: lower index first), then the others."""
        return self.visible().argsort(descending=True, stable=True)

    def visible(self) -> Tensor:
        """Scores for sorting: -1 where not observed (scores are never negative), shape (R,)."""
        return self.scores_R.where(self.observed_R, -1.0)

    def logged(self) -> tuple[float, ...]:
        """Scores as in the rank trace: descending, components without a score last as 0."""
        return tuple(self.visible()[self.order()].clamp_min(0).tolist())


@dataclass(frozen=True, slots=True)
class CoverageDecision:
    """The decision for one adapter."""

    index_K: Tensor
    """Kept components by descending score, unobserved ones last."""
    coverage: float
    """Share of the scope's importance that the kept components of the whole scope hold."""


def keep_by_coverage(
    scope: Sequence[ImportanceScores],
    rho: float,
    *,
    floor: int = 1,
    margin: int = 0,
    floor_holds_margin: bool = False,
) -> list[CoverageDecision]:
    """Keep the fewest components of a scope (one adapter, or several pooled) that cover rho of its importance.

    Kept first: unobserved components (no evidence, so no decision) and the `floor` best of each adapter; then
    components in descending order until the kept share reaches rho; then each adapter's `margin` next best. With
    `floor_holds_margin` the floor comes last: what coverage and margin leave of an adapter is filled up to it.
    When all scores are 0, or rho is 1, everything is kept: components whose share is 0 or rounds to 0 too. Sums are
    float64 over the float32 scores that are logged.
    """
    kept = [~evidence.observed_R for evidence in scope]
    before = 0 if floor_holds_margin else floor
    adapter, component, scores = _descending(scope, before)
    cumulative = scores.double().cumsum(0)
    if rho >= 1 or len(scores) == 0 or cumulative[-1] == 0:
        return [CoverageDecision(evidence.order(), 1.0) for evidence in scope]

    first = sum(min(before, int(evidence.observed_R.sum())) for evidence in scope)
    total = float(cumulative[-1]) + sum(evidence.dropped for evidence in scope)
    reached = int((cumulative / total < rho).sum()) + 1
    for a, c in zip(adapter[: max(reached, first)].tolist(), component.tolist(), strict=False):
        kept[a][c] = True

    kept = [_with_margin(mask, evidence, margin) for mask, evidence in zip(kept, scope, strict=True)]
    if floor_holds_margin:
        kept = [_with_margin(mask, e, floor - int(mask.sum())) for mask, e in zip(kept, scope, strict=True)]
    covered = sum(float(e.scores_R[k & e.observed_R].double().sum()) for k, e in zip(kept, scope, strict=True))
    share = min(covered / total, 1.0)
    return [
        CoverageDecision(order[mask[order]], share)
        for mask, order in zip(kept, (e.order() for e in scope), strict=True)
    ]


def _descending(scope: Sequence[ImportanceScores], floor: int) -> tuple[Tensor, Tensor, Tensor]:
    """Observed components of all adapters: floors first, then by descending score; (adapter, component, score)."""
    orders = [e.order()[: int(e.observed_R.sum())] for e in scope]
    adapter = torch.cat([torch.full_like(order, a) for a, order in enumerate(orders)])
    component = torch.cat(orders)
    scores = torch.cat([e.scores_R[order] for e, order in zip(scope, orders, strict=True)])
    beyond_floor = torch.cat([torch.arange(len(order)) >= floor for order in orders])
    by_score = scores.argsort(descending=True, stable=True)
    ranked = by_score[beyond_floor[by_score].long().argsort(stable=True)]
    return adapter[ranked], component[ranked], scores[ranked]


def _with_margin(kept_R: Tensor, evidence: ImportanceScores, margin: int) -> Tensor:
    dropped = [c for c in evidence.order().tolist() if not kept_R[c]]
    out = kept_R.clone()
    out[dropped[: max(margin, 0)]] = True
    return out
