"""One number for all points of a trial: the hypervolume of those that are feasible, or the best of one objective."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence

import numpy as np

from faar_ray.objectives.constraint import Constraint, feasible
from faar_ray.objectives.metrics import Objective
from faar_ray.objectives.pareto import Points, hypervolume, losses_of

Metrics = Mapping[str, float]
BEYOND = 0.5
"""A reference point that nobody gave lies by this share of the points' range beyond the worst of them."""


def reference_of(points: Sequence[Metrics], objectives: Sequence[Objective]) -> dict[str, float] | None:
    """A reference point from the points of one trial, by objective; None where no point has all objectives.

    Where all points are equal in an objective, its range counts as the value's size, or 1 for 0.
    """
    losses = _losses(points, objectives)
    if not len(losses):
        return None
    low, high = losses.min(axis=0), losses.max(axis=0)
    sizes = np.where(high == 0, 1.0, np.abs(high))
    reference = high + BEYOND * np.where(high > low, high - low, sizes)
    return {goal.name: -goal.sign * float(value) for goal, value in zip(objectives, reference, strict=True)}


def front_volume(
    points: Sequence[Metrics], objectives: Sequence[Objective], limits: Sequence[Constraint], reference: Metrics
) -> float:
    """Hypervolume of the feasible points, in the product of the objectives' units; 0 where none beats the reference."""
    inside = [point for point in points if feasible(point, limits)]
    return hypervolume(_losses(inside, objectives), losses_of([[reference[o.name] for o in objectives]], objectives)[0])


def best_point(points: Sequence[Metrics], objective: Objective, limits: Sequence[Constraint]) -> Metrics | None:
    """The best feasible point; where none is feasible, the one that is least outside; None without any value."""
    known = [point for point in points if math.isfinite(point.get(objective.name, math.nan))]
    if not known:
        return None
    return min(known, key=lambda point: (_outside(point, limits), -objective.sign * point[objective.name]))


def _outside(point: Metrics, limits: Sequence[Constraint]) -> float:
    return sum(max(0.0, limit.excess(point)) for limit in limits)


def _losses(points: Sequence[Metrics], objectives: Sequence[Objective]) -> Points:
    rows = ([point.get(goal.name, math.nan) for goal in objectives] for point in points)
    losses = losses_of(rows, objectives)
    finite: Points = losses[np.isfinite(losses).all(axis=1)]
    return finite
