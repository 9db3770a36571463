"""Asynchronous successive halving (Li et al. 2020), stopping form: a trial is judged when it comes to a rung."""

from __future__ import annotations

import math
from collections.abc import Sequence

from faar_ray.tune.metric_names import Goal
from faar_ray.tune.space_sections import SchedulerConfig


def rungs(min_epochs: int, reduction: int, epochs: int) -> tuple[int, ...]:
    """Numbers of finished epochs at which a trial is judged: `min_epochs * reduction^k` below `epochs`."""
    out: list[int] = []
    rung = min_epochs
    while rung < epochs:
        out.append(rung)
        rung *= reduction
    return tuple(out)


def goes_on(value: float, others: Sequence[float], reduction: int) -> bool:
    """Whether a trial is among the best 1/`reduction` of those that came to its rung so far, itself included.

    Args:
        value: its metric there, larger is better; NaN never goes on.
        others: of the trials that were there before.
        reduction: with fewer than this many at the rung nobody can be told apart, and the trial goes on.
    """
    if math.isnan(value):
        return False
    there = sorted((*others, value), reverse=True)
    keep = math.ceil(len(there) / reduction)
    return len(there) < reduction or value >= there[keep - 1]


class Halving:
    """The rungs of one search and who reached them with what."""

    def __init__(self, config: SchedulerConfig, goal: Goal) -> None:
        self.config = config
        self.sign = 1.0 if goal == "maximize" else -1.0
        self._at: dict[int, dict[str, float]] = {}

    def record(self, trial_id: str, finished: int, value: float) -> None:
        """Remember a trial's metric after `finished` epochs; every epoch may be given, only rungs are looked at."""
        self._at.setdefault(finished, {}).setdefault(trial_id, self.sign * value)

    def verdict(self, trial_id: str, finished: int, epochs: int) -> str:
        """ "" to go on, else why the trial is stopped; its own value must have been recorded."""
        if self.config.type == "none" or finished not in rungs(self.config.min_epochs, self.config.reduction, epochs):
            return ""
        there = self._at[finished]
        others = [value for other, value in there.items() if other != trial_id and not math.isnan(value)]
        if goes_on(there[trial_id], others, self.config.reduction):
            return ""
        best = self.sign * max(others, default=math.nan)
        value = self.sign * there[trial_id]
        return f"{self.config.metric} {value:.4g} after {finished} epochs, best there {best:.4g} of {len(there)} trials"
