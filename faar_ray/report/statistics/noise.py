"""Seed noise and differences between configurations, from one least-squares fit.

Trials of one seed share decoder init and batch order, so a value is modelled as config + seed + rest. Fitted by least
squares, the difference of two configurations is their mean paired difference where both ran on the same seeds, and
uses the seed effects of other configurations where they did not. The residual is the noise; its degrees of freedom
are trials - configurations - seeds + 1 (connected designs). Where that is 0, seeds are not modelled (config + rest).
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cache, cached_property
from statistics import fmean, stdev

import numpy as np
from numpy.typing import NDArray
from scipy import stats

Array = NDArray[np.float64]
ROUNDING = 1e-9
"""Rounding error of the fit: smaller differences are no differences, even where the noise is exactly 0."""


@dataclass(frozen=True)
class Noise:
    """Pooled seed noise of one metric."""

    metric: str
    sd: float
    """Of one trial; nan where dof is 0. `paired`: what remains when the seed's own effect is taken out."""
    dof: int
    paired: bool
    spread_sd: float
    """Plain sd over the seeds of one configuration, pooled; nan where spread_dof is 0."""
    spread_dof: int


@dataclass(frozen=True)
class Estimate:
    """A mean, or a difference of two configurations, with its 95% confidence interval."""

    value: float
    ci95: float
    """Half width of the interval; infinite where the noise is unknown."""
    dof: int

    @property
    def is_significant(self) -> bool:
        """Whether the interval leaves out 0."""
        return abs(self.value) > self.ci95 + ROUNDING


def mean_of(values: Sequence[float]) -> Estimate:
    """Mean with its 95% interval by Student's t; infinite for one value, nan for none."""
    if len(values) < 2:
        return Estimate(values[0] if values else math.nan, math.inf, 0)
    dof = len(values) - 1
    return Estimate(fmean(values), student(dof) * stdev(values) / math.sqrt(len(values)), dof)


@dataclass(frozen=True)
class Observation:
    """One finished trial: the value of a metric for a configuration and a seed."""

    config: str
    seed: int
    value: float


class SeedModel:
    """Least-squares fit of one metric: config + seed effects, or config alone where that leaves no freedom.

    Args:
        metric: its name.
        observations: at most one per (config, seed).
    """

    def __init__(self, metric: str, observations: Sequence[Observation]) -> None:
        self.metric = metric
        self.configs = sorted({o.config for o in observations})
        self._place = {config: place for place, config in enumerate(self.configs)}
        self.seeds = sorted({o.seed for o in observations})
        self._y = np.array([o.value for o in observations], dtype=np.float64)
        by_config = _indicator([o.config for o in observations], self.configs)
        by_seed = _indicator([o.seed for o in observations], self.seeds)
        self._plain = _Fit(by_config, self._y)
        self._additive = _Fit(np.hstack([by_config, by_seed]), self._y)

    @cached_property
    def noise(self) -> Noise:
        """Pooled noise and its degrees of freedom."""
        paired = self._additive.dof > 0
        fit = self._additive if paired else self._plain
        return Noise(self.metric, fit.sd, fit.dof, paired, self._plain.sd, self._plain.dof)

    def mean(self, config: str) -> float:
        """Mean over all seeds, the missing ones from the fit where the data determine them; else the plain mean."""
        contrast = np.concatenate([self._one(config), np.full(len(self.seeds), 1 / len(self.seeds))])
        if self._additive.determines(contrast):
            return round(self._additive.value(contrast), 9)  # equal trials stay equal, in whatever order they come
        return self._plain.value(self._one(config))

    def difference(self, config: str, other: str) -> Estimate:
        """`config` minus `other`, paired over seeds where the design allows it."""
        pair = self._place[config], self._place[other]
        if not self._additive.can_compare(*pair):
            return self._plain.difference(*pair)
        if self._additive.dof > 0:
            return self._additive.difference(*pair)
        plain = self._plain.difference(*pair)  # same seeds: the paired value, with the larger, unpaired noise
        return Estimate(self._additive.difference(*pair).value, plain.ci95, plain.dof)

    def standard_error(self, config: str) -> float:
        """Noise over the root of the number of the configuration's trials; nan where noise is unknown."""
        return self.noise.sd / math.sqrt(float(self._plain.trials(self._one(config))))

    def ci95(self, config: str) -> float:
        """Half width of a configuration's 95% interval; infinite where noise is unknown."""
        return student(self.noise.dof) * self.standard_error(config) if self.noise.dof else math.inf

    def _one(self, config: str) -> Array:
        one = np.zeros(len(self.configs))
        one[self._place[config]] = 1.0
        return one


class _Fit:
    """Ordinary least squares with contrasts of its coefficients."""

    def __init__(self, design: Array, y: Array) -> None:
        self._gram = design.T @ design
        self._inverse = np.linalg.pinv(self._gram)
        self._row_space = self._inverse @ self._gram
        self._coefficients = self._inverse @ design.T @ y
        self.dof = len(y) - int(np.linalg.matrix_rank(design)) if len(y) else 0
        self._rest = float(np.sum((y - design @ self._coefficients) ** 2))

    @cached_property
    def sd(self) -> float:
        return math.sqrt(self._rest / self.dof) if self.dof else math.nan

    def trials(self, contrast: Array) -> float:
        """Trials behind one coefficient (design columns must be disjoint)."""
        return float(contrast @ self._gram @ contrast)

    def determines(self, contrast: Array) -> bool:
        """Whether the data determine this combination of coefficients."""
        return bool(np.allclose(self._row_space @ contrast, contrast, atol=1e-8))

    def value(self, contrast: Array) -> float:
        return float(contrast @ self._coefficients)

    def can_compare(self, i: int, j: int) -> bool:
        """Whether the data determine the difference of two coefficients."""
        rest = self._row_space[i] - self._row_space[j]  # the projection is symmetric
        rest[i] -= 1
        rest[j] += 1
        return bool(np.abs(rest).max() < 1e-5)

    def difference(self, i: int, j: int) -> Estimate:
        """Of two coefficients."""
        value = float(self._coefficients[i] - self._coefficients[j])
        if not self.dof:
            return Estimate(value, math.inf, 0)
        variance = self._inverse[i, i] + self._inverse[j, j] - 2 * self._inverse[i, j]
        return Estimate(value, student(self.dof) * self.sd * math.sqrt(max(float(variance), 0.0)), self.dof)


@cache
def student(dof: int) -> float:
    """Two-sided 95% quantile of Student's t."""
    return float(stats.t.ppf(0.975, dof))


def _indicator(values: Sequence[str] | Sequence[int], levels: Sequence[str] | Sequence[int]) -> Array:
    return np.array([[float(v == level) for level in levels] for v in values]).reshape(len(values), len(levels))
