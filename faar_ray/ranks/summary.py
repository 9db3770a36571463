"""Aggregates of the ranks at hand, under their MLflow names."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable

from faar_ray.adapters import LowRankFactors


def rank_metrics(adapters: Iterable[LowRankFactors]) -> dict[str, float]:
    """`rank/mean` over adapters, `rank/weighted_mean` by parameters per rank (I + O), and means by task and stage.

    The published r_global of about 5 fits the plain mean, not the weighted one (METHODS, PDRS 9): both are here.
    """
    groups: dict[str, list[int]] = defaultdict(list)
    weighted = weights = 0
    for adapter in adapters:
        for group in ("mean", adapter.site.task, f"stage{adapter.site.stage}"):
            groups[group].append(adapter.rank)
        per_rank = sum(factor.shape[1] for factor in adapter.factors)
        weighted += per_rank * adapter.rank
        weights += per_rank
    means = {f"rank/{group}": sum(ranks) / len(ranks) for group, ranks in groups.items()}
    return means | ({"rank/weighted_mean": weighted / weights} if weights else {})
