"""Rules of early stopping: after each epoch a trial is compared with those that came as far before it.

A stopped trial is never resumed. The comparison is asynchronous: which trials are stopped depends on which came first.
The only state is what the journal holds, so a resumed search decides as an undisturbed one would.
"""

from __future__ import annotations

import math
import random
import statistics
from collections.abc import Sequence
from functools import cache

import numpy as np

from faar_ray.objectives.pareto import domination_rank
from faar_ray.report.statistics.groups import is_cost
from faar_ray.seeding import seed_of
from faar_ray.tune.propose.comparison import Compared, StoppingRule, Values, is_comparable
from faar_ray.tune.space.conditions import possible_integers
from faar_ray.tune.space.sections import FRONT, MARGIN, SchedulerConfig
from faar_ray.tune.space.space import SearchSpace


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


class SuccessiveHalving(StoppingRule):
    """asha (Li et al. 2020): at each rung a trial goes on if it is among the best 1/`reduction` that came so far.

    With `metric: front` "best" is by non-domination over all objectives, as each was at that rung (Schmucker et al.
    2021, ties broken by crowding distance).
    """

    def compares(self, number: int, finished: int, epochs: int) -> bool:
        """See `StoppingRule`."""
        is_rung = finished in rungs(self._first_rung(number), self.config.reduction, epochs)
        return is_rung and not self._trial(number).waits(finished)

    def stop_reason(self, number: int, finished: int, epochs: int) -> str:
        """See `StoppingRule`."""
        if not self.compares(number, finished, epochs):
            return ""
        values, others = self._at[finished][number], list(self._others(number, finished).values())
        result, reduction = f"{self._format_values(values)} after {finished} epochs", self.config.reduction
        trials = 1 + len(self._rivals(number, finished))
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

    def _rivals(self, number: int, finished: int) -> dict[int, Values]:
        first = self._first_rung(number)
        return {n: v for n, v in super()._rivals(number, finished).items() if self._first_rung(n) == first}


@cache
def _bracket(config: SchedulerConfig, seed: int, epochs: int, number: int) -> int:
    """A trial's first rung."""
    brackets = rungs(config.min_epochs, config.reduction, epochs + 1)
    most = len(brackets) - 1
    sizes = [math.ceil((most + 1) / (s + 1) * config.reduction**s) for s in range(most, -1, -1)]
    return random.Random(seed_of(seed, "bracket", number)).choices(brackets, sizes)[0]


class MedianStopping(StoppingRule):
    """Vizier's (Golovin et al. 2017): a trial's best so far against the median of the others' running means.

    Epochs without a value do not count; a trial that never had one stops. Of all, the epochs before the ranks of the
    trial that is compared were settled do not count either.
    """

    def compares(self, number: int, finished: int, epochs: int) -> bool:
        """See `StoppingRule`."""
        return self.config.min_epochs <= finished < epochs and not self._trial(number).waits(finished)

    def stop_reason(self, number: int, finished: int, epochs: int) -> str:
        """See `StoppingRule`."""
        others = self._others(number, finished)
        if not self.compares(number, finished, epochs) or len(others) < self.config.min_trials:
            return ""
        trial = self._trial(number)
        first = 1 if trial.is_unsettled(finished) else trial.unsettled + 1
        best = max(self._past(number, first, finished), default=math.nan)
        median = statistics.median(statistics.fmean(self._past(other, first, finished)) for other in others)
        if best >= median:
            return ""
        limit = f"{self._signs[0] * median:.4g}"
        return (
            f"best {self._format_values([best])} after {finished} epochs, median of {len(others)} trials' means {limit}"
        )

    def _past(self, number: int, first: int, finished: int) -> list[float]:
        values = (self._at[epoch][number][0] for epoch in range(first, finished + 1))
        return [value for value in values if not math.isnan(value)]


class PairedStopping(StoppingRule):
    """paired: a trial against finished trials of its seed, each as it was after as many epochs.

    Trials of one seed share their start and the order of images, so the difference of two has much less noise than
    either of them. The comparison begins at the share `min_share` of the epochs, from where on it tells the end, and is
    made with those finished trials that have the best final values: one, or with `metric: front` the front's. A trial
    stops if such a one was ahead by more than the margin in quality, and not behind in any other objective.
    """

    def compares(self, number: int, finished: int, epochs: int) -> bool:
        """See `StoppingRule`."""
        return self.config.first_paired(epochs) <= finished < epochs and not self._trial(number).waits(finished)

    def stop_reason(self, number: int, finished: int, epochs: int) -> str:
        """See `StoppingRule`."""
        if not self.compares(number, finished, epochs):
            return ""
        values = self._at[finished][number]
        for other, theirs in self._leaders(number, finished).items():
            if self._is_behind(values, theirs):
                sibling, had = self._trial(other).trial_id, self._format_values(theirs)
                behind = f"{sibling}, of the same seed, had {had} then, and the margin is {self._margin:g}"
                return f"{self._format_values(values)} after {finished} epochs: {behind}"
        return ""

    @property
    def _margin(self) -> float:
        return MARGIN if self.config.margin is None else self.config.margin

    @property
    def _quality(self) -> int:
        """Which of the metrics the margin is for: the first that is no cost."""
        return next((place for place, name in enumerate(self.goals) if not is_cost(name)), 0)

    def _leaders(self, number: int, finished: int) -> dict[int, Values]:
        """Values, after as many epochs, of the finished siblings whose final values no other's dominate."""
        trial = self._trial(number)
        siblings = {
            other: values
            for other, values in self._others(number, finished).items()
            if other in self._finals
            and (self._trial(other).seed, self._trial(other).epochs) == (trial.seed, trial.epochs)
        }
        finals = [self._finals[other] for other in siblings]
        return {
            other: values
            for other, values in siblings.items()
            if not any(_dominates(final, self._finals[other]) for final in finals)
        }

    def _is_behind(self, values: Values, theirs: Values) -> bool:
        """Whether it is worse by more than the margin in quality and better in nothing; NaN is always worse."""
        quality = self._quality
        better = any(value > other for i, (value, other) in enumerate(zip(values, theirs, strict=True)) if i != quality)
        return not better and not values[quality] >= theirs[quality] - self._margin


def _dominates(values: Values, others: Values) -> bool:
    pairs = list(zip(values, others, strict=True))
    return all(value >= other for value, other in pairs) and any(value > other for value, other in pairs)


STOPPING_RULES: dict[str, type[StoppingRule]] = {
    "asha": SuccessiveHalving,
    "hyperband": Hyperband,
    "median": MedianStopping,
    "paired": PairedStopping,
    "none": StoppingRule,
    "pbt": StoppingRule,  # see `population`
}


def build_stopping_rule(space: SearchSpace) -> StoppingRule:
    """The rule of a search space, with nothing recorded."""
    config = space.scheduler
    names = [o.name for o in space.objectives] if config.metric == FRONT else [config.metric]
    goals = {name: space.goal(name) for name in names}
    return STOPPING_RULES[config.type](config, goals, space.search.seed, most_epochs(space))


def compared_epochs(space: SearchSpace) -> tuple[list[int], list[int]]:
    """Finished epochs after which a trial of the base is compared, and those that its unsettled ranks forbid.

    Of hyperband those of the first bracket.
    """
    config, rule = space.trial_config({}), build_stopping_rule(space)
    if space.scheduler.type == "hyperband":
        rule = SuccessiveHalving(space.scheduler, rule.goals)
    trial, epochs = Compared.of("", config), range(1, config.optim.epochs)
    all_of = [epoch for epoch in epochs if rule.compares(0, epoch, config.optim.epochs)]
    rule.introduce(0, trial)
    compared = [epoch for epoch in all_of if rule.compares(0, epoch, config.optim.epochs)]
    return compared, [epoch for epoch in all_of if epoch not in compared]


def most_epochs(space: SearchSpace) -> int:
    """The most epochs that a trial of the search may train."""
    base = space.trial_config({}).optim.epochs
    return max(possible_integers(space.parameters, "optim.epochs", base))
