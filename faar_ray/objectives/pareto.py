"""Pareto dominance, crowding distance and hypervolume of losses (all to be minimised). Pure functions."""

from __future__ import annotations

import math
from collections.abc import Iterable, Iterator, Mapping, Sequence

import numpy as np
from numpy.typing import NDArray

from faar_ray.objectives.metrics import Objective

Points = NDArray[np.float64]


def losses_of(rows: Iterable[Sequence[float]], objectives: Sequence[Objective]) -> Points:
    """Values of objectives, a row per point, as losses of shape (points, objectives)."""
    signs = [-objective.sign for objective in objectives]
    return np.array(list(rows), dtype=np.float64).reshape(-1, len(signs)) * signs


def pareto_front(values: Mapping[str, Sequence[float]], objectives: Sequence[Objective]) -> set[str]:
    """Keys that no other dominates: as good in every objective and better in one.

    Args:
        values: per key, one value per objective, in their order; with a NaN a key is on no front.
        objectives: only `goal` is used.
    """
    compared = {key: row for key, row in values.items() if not any(map(math.isnan, row))}
    keys = list(compared)
    return {keys[index] for index in _front(losses_of(compared.values(), objectives))}


def nondominated_layers(losses: Points) -> Iterator[list[int]]:
    """Indices by layers of non-domination, the front first, each sorted by the first loss.

    Args:
        losses: (points, objectives), no NaN.
    """
    no_worse: NDArray[np.bool_] = np.logical_and.reduce([column[:, None] <= column for column in losses.T])
    dominates = no_worse & ~no_worse.T
    dominators = dominates.sum(axis=0)
    remaining = np.ones(len(losses), dtype=bool)
    while remaining.any():
        layer = remaining & (dominators == 0)
        yield sorted(map(int, np.flatnonzero(layer)), key=lambda index: tuple(losses[index]))
        remaining &= ~layer
        dominators -= dominates[layer].sum(axis=0)


def _front(losses: Points) -> list[int]:
    return next(nondominated_layers(losses), [])


def crowding_distance(losses: Points) -> NDArray[np.float64]:
    """Crowding distance (Deb et al. 2002) of each point of a layer: infinite at the ends, 0 for one of two equals."""
    distance = np.zeros(len(losses))
    for column in losses.T:
        ordered = np.sort(column)
        if (width := ordered[-1] - ordered[0]) == 0:
            continue
        first, after = np.searchsorted(ordered, column, "left"), np.searchsorted(ordered, column, "right")
        above, below = ordered[np.minimum(after, len(ordered) - 1)], ordered[np.maximum(first - 1, 0)]
        gap = np.where(after - first > 1, 0.0, (above - below) / width)
        distance += np.where((first == 0) | (after == len(ordered)), np.inf, gap)
    return distance


def domination_rank(losses: Points, index: int) -> int:
    """Number of points ahead of one: all of better layers, and those of its layer with a larger crowding distance."""
    before = 0
    for layer in nondominated_layers(losses):
        if index in layer:
            distance = crowding_distance(losses[layer])
            return before + int((distance > distance[layer.index(index)]).sum())
        before += len(layer)
    raise IndexError(index)


def hypervolume(losses: Points, reference: Points) -> float:
    """Volume between the reference point and what the points dominate, all objectives to be minimised.

    Sliced along the last objective; two objectives are summed at once. (Optuna draws such a history, but its function
    is private.)

    Args:
        losses: (points, objectives); those that do not dominate the reference point add nothing.
        reference: (objectives,).
    """
    inside = losses[(losses < reference).all(axis=1)]
    if not len(inside):
        return 0.0
    ordered = inside[np.lexsort(inside.T)]  # by the last objective
    if ordered.shape[1] == 1:
        return float(reference[0] - ordered[0, 0])
    thickness = np.diff(np.append(ordered[:, -1], reference[-1]))
    if ordered.shape[1] == 2:
        return float(thickness @ (reference[0] - np.minimum.accumulate(ordered[:, 0])))
    below = (
        (hypervolume(non_dominated(ordered[: i + 1, :-1]), reference[:-1]), t) for i, t in enumerate(thickness) if t
    )
    return float(sum(area * t for area, t in below))


def non_dominated(losses: Points) -> Points:
    """The points that no other dominates; of equal ones, one."""
    distinct: Points = np.unique(losses, axis=0)
    return distinct[_front(distinct)]
