"""Rules of early stopping: after each epoch a trial is compared with those that came as far before it.

A stopped trial is never resumed. The comparison is asynchronous: which trials are stopped depends on which came first.
The only state is the metrics in the journal, so a resumed search decides as an undisturbed one would.
"""

from __future__ import annotations

import math
import random
import statistics
from collections.abc import Mapping, Sequence
from functools import cache

import numpy as np

from faar_ray.objectives.metrics import Goal
from faar_ray.objectives.pareto import domination_rank
from faar_ray.seeding import seed_of
from faar_ray.tune.space.conditions import possible_integers
from faar_ray.tune.space.sections import FRONT, SchedulerConfig
from faar_ray.tune.space.space import SearchSpace

Values = Sequence[float]


def rungs(min_epochs: int, reduction: int, epochs: int) -> tuple[int, ...]:
    """Numbers of finished epochs at which trials are compared: `min_epochs * reduction^k` below `epochs`."""
    numbers: list[int] = []
    rung = min_epochs
    while rung < epochs:
        numbers.append(rung)
        rung *= reduction
    return tuple(numbers)


def survives(value: float, others: Sequence[float], reduction: int) -> bool:
    """Whether a trial is among the best 1/`reduction` of those that came to its rung so far, itself included.

    Args:
        value: its metric at the rung, larger is better; NaN never goes on.
        others: those of the trials that came there before.
        reduction: with fewer trials than this at the rung, the trial goes on.
    """
    if math.isnan(value):
        return False
    ranked = sorted((*others, value), reverse=True)
    survivors = math.ceil(len(ranked) / reduction)
    return len(ranked) < reduction or value >= ranked[survivors - 1]


def survives_by_front(values: Values, others: Sequence[Values], reduction: int) -> bool:
    """The same by several metrics: by layer of non-domination, and within a layer by crowding distance.

    The best trial in each metric has infinite crowding distance, so both ends of the front always go on.
    """
    if not is_comparable(values):
        return False
    points = np.array([values, *others], dtype=np.float64)
    return len(points) < reduction or domination_rank(-points, 0) < math.ceil(len(points) / reduction)


def is_comparable(values: Values) -> bool:
    """Whether trials can be ranked by these values."""
    return not math.isnan(values[0]) if len(values) == 1 else all(map(math.isfinite, values))


class StoppingRule:
    """Stops no trial (`type: none`); the other rules add to it, over the metrics that it records.

    Args:
        config: the section of the search space.
        goals: of the metrics that are looked at.
        seed: of the search.
        epochs: the most that a trial of the search may train.
    """

    def __init__(self, config: SchedulerConfig, goals: Mapping[str, Goal], seed: int = 0, epochs: int = 1) -> None:
        self.config, self.goals, self.seed, self.epochs = config, goals, seed, epochs
        self._signs = [1.0 if goal == "maximize" else -1.0 for goal in goals.values()]
        self._at: dict[int, dict[int, Values]] = {}

    def select_metrics(self, metrics: Mapping[str, float]) -> list[float]:
        """The metrics of an epoch that the rule compares; NaN where one is missing or not finite."""
        values = (metrics.get(name, math.nan) for name in self.goals)
        return [value if math.isfinite(value) else math.nan for value in values]

    def record(self, number: int, finished: int, values: Values) -> None:
        """Record a trial's values, by its number, after `finished` epochs; recording an epoch again changes nothing."""
        signed = [sign * value for sign, value in zip(self._signs, values, strict=True)]
        self._at.setdefault(finished, {}).setdefault(number, signed)

    def stop_reason(self, number: int, finished: int, epochs: int) -> str:
        """Why the trial is stopped, "" where it goes on; its own values must have been recorded.

        Args:
            number: of the trial.
            finished: its epochs so far.
            epochs: that it would train.
        """
        return ""

    def _others(self, number: int, finished: int) -> dict[int, Values]:
        """The comparable values of the other trials after as many epochs."""
        return {
            other: values for other, values in self._at[finished].items() if other != number and is_comparable(values)
        }

    def _format_values(self, values: Values) -> str:
        return ", ".join(f"{name} {s * v:.4g}" for name, s, v in zip(self.goals, self._signs, values, strict=True))


class SuccessiveHalving(StoppingRule):
    """asha (Li et al. 2020): at each rung a trial goes on if it is among the best 1/`reduction` that came so far.

    With `metric: front` "best" is by non-domination over all objectives, as each was at that rung (Schmucker et al.
    2021, ties broken by crowding distance).
    """

    def stop_reason(self, number: int, finished: int, epochs: int) -> str:
        """See `StoppingRule`."""
        if finished not in rungs(self._first_rung(number), self.config.reduction, epochs):
            return ""
        values, others = self._at[finished][number], list(self._others(number, finished).values())
        result, reduction = f"{self._format_values(values)} after {finished} epochs", self.config.reduction
        first = self._first_rung(number)
        trials = sum(1 for other in self._at[finished] if self._first_rung(other) == first)
        if len(values) > 1:
            if survives_by_front(values, others, reduction):
                return ""
            return f"{result}, too far behind the front or crowded there, of {trials} trials"
        if survives(values[0], [other[0] for other in others], reduction):
            return ""
        best = self._signs[0] * max((other[0] for other in others), default=math.nan)
        return f"{result}, best there {best:.4g} of {trials} trials"

    def _first_rung(self, number: int) -> int:
        return self.config.min_epochs


class Hyperband(SuccessiveHalving):
    """Several brackets of asha (Li et al. 2018); the first rung of each is `reduction` times later than the one before.

    A trial's bracket is drawn from the search's seed and the trial's number, early brackets more often: as in the
    paper's count of configurations, whose brackets cost about the same. The last may have no rung at all.
    """

    def _first_rung(self, number: int) -> int:
        return _bracket(self.config, self.seed, self.epochs, number)

    def _others(self, number: int, finished: int) -> dict[int, Values]:
        first = self._first_rung(number)
        return {n: v for n, v in super()._others(number, finished).items() if self._first_rung(n) == first}


@cache
def _bracket(config: SchedulerConfig, seed: int, epochs: int, number: int) -> int:
    """A trial's first rung."""
    brackets = rungs(config.min_epochs, config.reduction, epochs + 1)
    most = len(brackets) - 1
    sizes = [math.ceil((most + 1) / (s + 1) * config.reduction**s) for s in range(most, -1, -1)]
    return random.Random(seed_of(seed, "bracket", number)).choices(brackets, sizes)[0]


class MedianStopping(StoppingRule):
    """Vizier's (Golovin et al. 2017): a trial's best so far against the median of the others' running means.

    Epochs without a value do not count; a trial that never had one stops.
    """

    def stop_reason(self, number: int, finished: int, epochs: int) -> str:
        """See `StoppingRule`."""
        others = self._others(number, finished)
        if not self.config.min_epochs <= finished < epochs or len(others) < self.config.min_trials:
            return ""
        best = max(self._past(number, finished), default=math.nan)
        median = statistics.median(statistics.fmean(self._past(other, finished)) for other in others)
        if best >= median:
            return ""
        limit = f"{self._signs[0] * median:.4g}"
        return (
            f"best {self._format_values([best])} after {finished} epochs, median of {len(others)} trials' means {limit}"
        )

    def _past(self, number: int, finished: int) -> list[float]:
        values = (self._at[epoch][number][0] for epoch in range(1, finished + 1))
        return [value for value in values if not math.isnan(value)]


STOPPING_RULES: dict[str, type[StoppingRule]] = {
    "asha": SuccessiveHalving,
    "hyperband": Hyperband,
    "median": MedianStopping,
    "none": StoppingRule,
    "pbt": StoppingRule,  # see `population`
}


def build_stopping_rule(space: SearchSpace) -> StoppingRule:
    """The rule of a search space, with nothing recorded."""
    config = space.scheduler
    names = [o.name for o in space.objectives] if config.metric == FRONT else [config.metric]
    goals = {name: space.goal(name) for name in names}
    return STOPPING_RULES[config.type](config, goals, space.search.seed, most_epochs(space))


def most_epochs(space: SearchSpace) -> int:
    """The most epochs that a trial of the search may train."""
    base = space.trial_config({}).optim.epochs
    return max(possible_integers(space.parameters, "optim.epochs", base))
