"""How much of the space of objectives a front dominates; exact, in any dimension."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

Points = NDArray[np.float64]


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
