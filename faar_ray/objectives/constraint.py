"""Constraints on metrics, as a search space states them: what breaks one is never the best and on no front."""

from __future__ import annotations

import math
import re
from collections.abc import Iterable, Mapping
from typing import Literal

from faar_ray.config.trial import Section

FARTHEST = 1e30  # samplers square it
CONSTRAINT = re.compile(r"\s*(\S+)\s*(<=|>=)\s*(\S+)\s*")


class Constraint(Section):
    """`metric <= limit` or `metric >= limit`."""

    metric: str
    sign: Literal["<=", ">="]
    limit: float

    def __str__(self) -> str:
        return f"{self.metric} {self.sign} {self.limit:.6g}"

    def excess(self, metrics: Mapping[str, float]) -> float:
        """How far the metric is past the limit: feasible where this is <= 0 (Optuna's convention).

        A metric that is not there, or no number, is as far past it as can be.
        """
        over = metrics.get(self.metric, math.nan) - self.limit
        return FARTHEST if math.isnan(over) else max(-FARTHEST, min(over if self.sign == "<=" else -over, FARTHEST))


def parse_constraint(text: str) -> Constraint | None:
    """The constraint that a text states, or None."""
    match = CONSTRAINT.fullmatch(text)
    if match is None:
        return None
    try:
        return Constraint.model_validate({"metric": match[1], "sign": match[2], "limit": float(match[3])})
    except ValueError:
        return None


def feasible(metrics: Mapping[str, float], limits: Iterable[Constraint]) -> bool:
    """Whether all constraints hold; without its metric none does."""
    return all(limit.excess(metrics) <= 0 for limit in limits)
