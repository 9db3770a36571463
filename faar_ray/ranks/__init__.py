"""Rank policies: fixed, and Performance-Driven Rank Shrinking."""

from collections.abc import Sequence

from faar_ray.adapters import LowRankFactors
from faar_ray.config.trial import TrialConfig
from faar_ray.ranks.coverage import CoverageDecision, ImportanceScores, keep_by_coverage
from faar_ray.ranks.pdrs import PDRS, Importance
from faar_ray.ranks.policy import FixedRanks, RankPolicy
from faar_ray.ranks.shrink import shrink
from faar_ray.ranks.summary import rank_metrics, sine_metrics

__all__ = [
    "PDRS",
    "CoverageDecision",
    "FixedRanks",
    "Importance",
    "ImportanceScores",
    "RankPolicy",
    "build_policy",
    "keep_by_coverage",
    "rank_metrics",
    "shrink",
    "sine_metrics",
]


def build_policy(config: TrialConfig, adapters: Sequence[LowRankFactors]) -> RankPolicy:
    """The policy that `ranks.kind` names."""
    if config.ranks.kind == "fixed":
        return FixedRanks(adapters)
    return PDRS(adapters, config.pdrs, seed=config.seed, epochs=config.optim.epochs)
