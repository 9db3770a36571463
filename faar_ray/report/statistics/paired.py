"""Comparisons seed by seed: two configurations on the same seeds, and a configuration against a curve over sizes."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence

import numpy as np

from faar_ray.report.statistics.noise import Estimate, mean_of

SAME_SIZE = 0.01
"""Share by which a size may lie outside a curve and still be read off at its end."""


def paired_difference(values: Mapping[int, float], others: Mapping[int, float]) -> Estimate:
    """Mean of `values` minus `others` over the seeds that both have, with a paired 95% t-interval.

    Args:
        values: by seed.
        others: by seed.
    """
    return mean_of([value - others[seed] for seed, value in sorted(values.items()) if seed in others])


def at_size(curve: Sequence[tuple[float, float]], size: float) -> float:
    """The quality of a curve at a size, linear in the logarithm of the size; nan outside of its sizes.

    Args:
        curve: (size, quality) points, in any order; of equal sizes the better quality counts.
        size: above 0.
    """
    best: dict[float, float] = {}
    for at, quality in curve:
        best[at] = max(quality, best.get(at, -math.inf))
    if not best or not min(best) * (1 - SAME_SIZE) <= size <= max(best) * (1 + SAME_SIZE):
        return math.nan
    sizes = sorted(best)
    return float(np.interp(math.log(size), np.log(sizes), [best[at] for at in sizes]))
