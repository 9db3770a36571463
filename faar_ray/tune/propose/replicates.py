"""Which configurations lead and are run again on more seeds. Pure functions."""

from __future__ import annotations

import math
from collections.abc import Sequence

import numpy as np

from faar_ray.objectives.metrics import Objective
from faar_ray.objectives.pareto import Points, nondominated_layers
from faar_ray.records import TrialResult


def leading(finished: Sequence[TrialResult], objectives: Sequence[Objective], top: int) -> list[TrialResult]:
    """The `top` leading trials, best layers of non-domination first, spread within a layer that does not fit whole.

    Args:
        finished: COMPLETE trials, one per configuration.
        objectives: with one, the best values lead; with several, the Pareto front, its ends first.
        top: how many; fewer come back when fewer finished.
    """
    rows = [_losses(result, objectives) for result in finished]
    losses = np.array(rows, dtype=np.float64).reshape(len(rows), len(objectives))
    chosen: list[int] = []
    for layer in nondominated_layers(losses):
        missing = top - len(chosen)
        chosen += layer if len(layer) <= missing else _spread(losses, layer, missing)
    return [finished[index] for index in chosen]


def _losses(result: TrialResult, objectives: Sequence[Objective]) -> list[float]:
    values = [result.metrics.get(objective.name, math.nan) for objective in objectives]
    signed = [-v if o.goal == "maximize" else v for v, o in zip(values, objectives, strict=True)]
    return [math.inf if math.isnan(value) else value for value in signed]


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
