"""What all rules of early stopping share: the metrics of trials by epoch, and which trials may be compared.

A trial's ranks are unsettled while components are masked or are still to be dropped. Masks hide what a trial has
learnt, the more the larger its ranks are: over the masked epochs of FAAR early order is not the final order, and may be
its reverse; before a cut a trial has another size and another quality than after it. No rule compares a trial there
that has settled epochs to come; one that is unsettled to its end is compared with those that are unsettled there too.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from faar_ray.config.trial import TrialConfig
from faar_ray.objectives.metrics import Goal
from faar_ray.tune.space.sections import SchedulerConfig

Values = Sequence[float]


def is_comparable(values: Values) -> bool:
    """Whether trials can be ranked by these values."""
    return not math.isnan(values[0]) if len(values) == 1 else all(map(math.isfinite, values))


@dataclass(frozen=True, slots=True)
class Compared:
    """What decides with whom a trial is compared."""

    trial_id: str = ""
    seed: int = 0
    epochs: int = 0
    """That it trains unless it is stopped."""
    unsettled: int = 0
    """Its first epochs, in which components are masked or still to be dropped."""

    @classmethod
    def of(cls, trial_id: str, config: TrialConfig) -> Compared:
        """Of a trial with this config."""
        return cls(trial_id, config.seed, config.optim.epochs, config.unsettled_epochs)

    def is_unsettled(self, finished: int) -> bool:
        """Whether its metrics after so many epochs are those of unsettled ranks."""
        return finished <= self.unsettled

    def waits(self, finished: int) -> bool:
        """Whether its ranks are to settle before it ends: until then it is compared with nobody."""
        return self.is_unsettled(finished) and self.unsettled < self.epochs


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
        self._trials: dict[int, Compared] = {}
        self._finals: dict[int, Values] = {}

    def introduce(self, number: int, trial: Compared) -> None:
        """Tell which trial a number is, before its epochs are recorded."""
        self._trials[number] = trial

    def finish(self, number: int, values: Values) -> None:
        """Record the final values of a trial that is complete and within all constraints."""
        self._finals[number] = self._signed(values)

    def select_metrics(self, metrics: Mapping[str, float]) -> list[float]:
        """The metrics of an epoch that the rule compares; NaN where one is missing or not finite."""
        values = (metrics.get(name, math.nan) for name in self.goals)
        return [value if math.isfinite(value) else math.nan for value in values]

    def record(self, number: int, finished: int, values: Values) -> None:
        """Record a trial's values, by its number, after `finished` epochs; recording an epoch again changes nothing."""
        self._at.setdefault(finished, {}).setdefault(number, self._signed(values))

    def compares(self, number: int, finished: int, epochs: int) -> bool:
        """Whether the trial is compared with others after so many epochs of `epochs`; `stop_reason` is "" else."""
        return False

    def stop_reason(self, number: int, finished: int, epochs: int) -> str:
        """Why the trial is stopped, "" where it goes on; its own values must have been recorded.

        Args:
            number: of the trial.
            finished: its epochs so far.
            epochs: that it would train.
        """
        return ""

    def _rivals(self, number: int, finished: int) -> dict[int, Values]:
        """Values of the other trials after as many epochs that are unsettled then if this one is, and only then."""
        unsettled = self._trial(number).is_unsettled(finished)
        return {
            other: values
            for other, values in self._at[finished].items()
            if other != number and self._trial(other).is_unsettled(finished) == unsettled
        }

    def _others(self, number: int, finished: int) -> dict[int, Values]:
        """Those of them that can be ranked."""
        return {other: values for other, values in self._rivals(number, finished).items() if is_comparable(values)}

    def _trial(self, number: int) -> Compared:
        return self._trials.get(number, Compared())

    def _signed(self, values: Values) -> list[float]:
        """Larger is better."""
        return [sign * value for sign, value in zip(self._signs, values, strict=True)]

    def _format_values(self, values: Values) -> str:
        return ", ".join(f"{name} {s * v:.4g}" for name, s, v in zip(self.goals, self._signs, values, strict=True))
