"""Rank policies: fixed, Performance-Driven Rank Shrinking, and spectral ranks (`spectral`)."""

from faar_ray.ranks.coverage import CoverageDecision, ImportanceScores, keep_by_coverage
from faar_ray.ranks.importance import Importance
from faar_ray.ranks.inherited import inherited_records
from faar_ray.ranks.pdrs import PDRS
from faar_ray.ranks.policy import RankPolicy, build_policy, record
from faar_ray.ranks.shrink import shrink
from faar_ray.ranks.summary import rank_metrics, sine_metrics

__all__ = [
    "PDRS",
    "CoverageDecision",
    "Importance",
    "ImportanceScores",
    "RankPolicy",
    "build_policy",
    "inherited_records",
    "keep_by_coverage",
    "rank_metrics",
    "record",
    "shrink",
    "sine_metrics",
]
