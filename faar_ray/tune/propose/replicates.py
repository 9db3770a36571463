"""Which configurations lead and are run again on more seeds. Pure functions."""

from __future__ import annotations

import math
from collections.abc import Sequence

import numpy as np

from faar_ray.objectives.metrics import Objective
from faar_ray.objectives.pareto import Points, losses_of, nondominated_layers
from faar_ray.records import TrialResult


def leading(finished: Sequence[TrialResult], objectives: Sequence[Objective], top: int) -> list[TrialResult]:
    """The `top` leading trials, best layers of non-domination first, spread within a layer that does not fit whole.

    Args:
        finished: COMPLETE trials, one per configuration.
        objectives: with one, the best values lead; with several, the Pareto front, its ends first.
        top: how many; fewer come back when fewer finished.
    """
    values = ([result.metrics.get(objective.name, math.nan) for objective in objectives] for result in finished)
    losses = losses_of(values, objectives)
    losses[np.isnan(losses)] = math.inf
    chosen: list[int] = []
    for layer in nondominated_layers(losses):
        missing = top - len(chosen)
        chosen += layer if len(layer) <= missing else _spread(losses, layer, missing)
    return [finished[index] for index in chosen]


def _spread(losses: Points, layer: list[int], size: int) -> list[int]:
    """`size` members of a layer: its best in the first objective, then always the farthest from those chosen."""
    if size <= 0:
        return []
    width = np.ptp(losses[layer], axis=0)
    scaled = losses / np.where((width > 0) & np.isfinite(width), width, 1.0)
    chosen = [layer[0]]
    while len(chosen) < size:
        rest = [index for index in layer if index not in chosen]
        chosen.append(max(rest, key=lambda i: min(float(np.abs(scaled[i] - scaled[j]).sum()) for j in chosen)))
    return chosen
