"""Order among points of several losses: layers of non-domination, and room within a layer. Pure functions."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np
from numpy.typing import NDArray

Points = NDArray[np.float64]


def nondominated_layers(losses: Points) -> Iterator[list[int]]:
    """Indices by layers of non-domination, the front first, each sorted by the first loss.

    Args:
        losses: one row per point, smaller is better, no NaN.
    """
    no_worse: NDArray[np.bool_] = np.logical_and.reduce([column[:, None] <= column for column in losses.T])
    dominates = no_worse & ~no_worse.T
    above = dominates.sum(axis=0)
    left = np.ones(len(losses), dtype=bool)
    while left.any():
        here = left & (above == 0)
        yield sorted(map(int, np.flatnonzero(here)), key=lambda index: tuple(losses[index]))
        left &= ~here
        above -= dominates[here].sum(axis=0)


def crowding_distance(losses: Points) -> NDArray[np.float64]:
    """Crowding distance (Deb et al. 2002) of each point of a layer: infinite at the ends, 0 for one of two equals."""
    room = np.zeros(len(losses))
    for column in losses.T:
        held = np.sort(column)
        if (width := held[-1] - held[0]) == 0:
            continue
        first, after = np.searchsorted(held, column, "left"), np.searchsorted(held, column, "right")
        above, below = held[np.minimum(after, len(held) - 1)], held[np.maximum(first - 1, 0)]
        gap = np.where(after - first > 1, 0.0, (above - below) / width)
        room += np.where((first == 0) | (after == len(held)), np.inf, gap)
    return room


def domination_rank(losses: Points, index: int) -> int:
    """How many points stand before one: all of better layers, and of its own those with more room around them."""
    before = 0
    for layer in nondominated_layers(losses):
        if index in layer:
            room = crowding_distance(losses[layer])
            return before + int((room > room[layer.index(index)]).sum())
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
    kept = np.unique(losses, axis=0)  # by the first objective: what dominates a point stands before it
    front: list[Points] = []
    for point in kept:
        if not any((other <= point).all() for other in front):
            front.append(point)
    return np.array(front).reshape(-1, losses.shape[1])
