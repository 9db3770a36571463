"""How well the order of trials after each epoch told their final order, in the search at hand (Spearman)."""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from scipy import stats

from faar_ray.records import TrialResult
from faar_ray.report.history import MetricCurve
from faar_ray.report.statistics.noise import student

FEWEST = 5
"""Trials, below which a rank correlation says nothing."""
Array = NDArray[np.float64]


@dataclass(frozen=True)
class EpochOrder:
    """Rank correlations of a metric after so many epochs with its final values; nan where it cannot be computed."""

    finished: int
    overall: float
    within: float
    """With each seed's mean taken off both: the order among trials of one seed."""


@dataclass(frozen=True)
class EarlyOrder:
    """The correlations of a search; without `orders` there were too few trials."""

    metric: str
    trials: int
    """Complete trials with equally many epochs."""
    seeds: int
    """With at least two of them."""
    epochs: int
    orders: tuple[EpochOrder, ...] = ()

    @property
    def is_paired(self) -> bool:
        """Whether there is an order within seeds beside the one over all."""
        return self.seeds > 1

    @property
    def critical(self) -> float:
        """The correlation below which so many trials are no evidence for any (95%)."""
        t, dof = student(self.trials - 2), self.trials - 2
        return t / math.sqrt(dof + t * t)


def early_order(results: Sequence[TrialResult], curves: Mapping[str, MetricCurve], metric: str) -> EarlyOrder | None:
    """The correlations over the search's complete trials.

    Args:
        results: all trials.
        curves: the metric by epoch, of each trial id.
        metric: its name.

    Returns:
        None where no trial has a curve of several epochs.
    """
    known = {
        result.trial_id: (result.seed, [value for _, value in curves[result.trial_id]])
        for result in results
        if result.role == "trial" and result.state == "COMPLETE" and curves.get(result.trial_id)
    }
    known = {name: (seed, curve) for name, (seed, curve) in known.items() if all(map(math.isfinite, curve))}
    lengths = Counter(len(curve) for _, curve in known.values())
    epochs = max(lengths, key=lambda length: (lengths[length], length), default=0)
    if epochs < 2:
        return None

    compared = [(seed, curve) for seed, curve in known.values() if len(curve) == epochs]
    seeds = [seed for seed, _ in compared]
    several = {seed for seed, count in Counter(seeds).items() if count > 1}
    if len(compared) < FEWEST:
        return EarlyOrder(metric, len(compared), len(several), epochs)
    values = np.array([curve for _, curve in compared])
    orders = tuple(_order(values, np.array(seeds), several, finished) for finished in range(1, epochs))
    return EarlyOrder(metric, len(compared), len(several), epochs, orders)


def _order(values_TE: Array, seeds_T: NDArray[np.int64], several: set[int], finished: int) -> EpochOrder:
    early_T, final_T = values_TE[:, finished - 1].copy(), values_TE[:, -1].copy()
    overall = _spearman(early_T, final_T)
    inside_T = np.isin(seeds_T, list(several))
    for seed in several:
        of_seed = seeds_T == seed
        early_T[of_seed] -= early_T[of_seed].mean()
        final_T[of_seed] -= final_T[of_seed].mean()
    return EpochOrder(finished, overall, _spearman(early_T[inside_T], final_T[inside_T]))


def _spearman(early_T: Array, final_T: Array) -> float:
    """nan for fewer than `FEWEST` values, or where all are the same."""
    if len(early_T) < FEWEST or np.ptp(early_T) == 0 or np.ptp(final_T) == 0:
        return math.nan
    return float(stats.spearmanr(early_T, final_T).statistic)
