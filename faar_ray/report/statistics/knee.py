"""The knee of a front of two objectives: where a further loss in one stops paying off in the other."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from faar_ray.objectives.metrics import Objective
from faar_ray.report.statistics.noise import ROUNDING, student
from faar_ray.report.statistics.table import Row


@dataclass(frozen=True)
class Knee:
    """The point of the front farthest from the straight line between its ends, both objectives scaled to the front."""

    config_id: str
    distance: float
    """From the line, in units of the scaled front; the farthest possible is the root of 1/2."""
    ends: tuple[str, str]
    """The front's best in the first objective, and in the second (config_ids)."""
    noise: float
    """95% half width of the distance, from the seed noise of the quality; infinite where that is unknown."""


def knee_of(rows: Sequence[Row], goals: Sequence[Objective], quality: str, dof: int) -> Knee | None:
    """The knee; None with other than two objectives, fewer than three points, or a front without a bulge.

    Args:
        rows: configurations of the front.
        goals: the objectives.
        quality: the objective that is measured with noise.
        dof: degrees of freedom of that noise.
    """
    if len(goals) != 2 or len(rows) < 3:
        return None
    gains = np.array([[goal.sign * row.values[goal.name] for goal in goals] for row in rows])
    low, width = gains.min(axis=0), np.ptp(gains, axis=0)
    if not width.all():
        return None
    scaled = (gains - low) / width  # the line between the ends runs from (1, 0) to (0, 1)
    distances = (scaled.sum(axis=1) - 1) / math.sqrt(2)
    at, ends = int(distances.argmax()), [int(i) for i in gains.argmax(axis=0)]
    if distances[at] <= ROUNDING:
        return None
    axis = [goal.name for goal in goals].index(quality)
    share = scaled[at, axis]
    error = math.hypot(*(rows[i].error * w for i, w in ((at, 1.0), (ends[axis], share), (ends[1 - axis], 1 - share))))
    half = student(dof) * error / float(width[axis]) / math.sqrt(2) if dof else math.inf
    return Knee(rows[at].config_id, float(distances[at]), (rows[ends[0]].config_id, rows[ends[1]].config_id), half)
