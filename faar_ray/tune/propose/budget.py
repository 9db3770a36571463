"""What a search has spent, and which of its budgets that has used up."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Mapping

from faar_ray.tune.space.sections import Budget
from faar_ray.tune.space.space import SearchSpace

HOUR = 3600.0


class BudgetTracker:
    """Counts wall time, and the GPU-hours and USD of trials while they have their machines.

    Args:
        space: with budgets, GPUs and price of a trial.
        before: amounts that earlier drivers of this search spent.
        now: clock in seconds.
    """

    def __init__(self, space: SearchSpace, before: Mapping[str, float], now: Callable[[], float]) -> None:
        self.budget, self._before, self._now, self._begun = space.budget, dict(before), now, now()
        self._rates = hourly_rates(space)
        self._holders: set[str] = set()
        self._placed = math.inf
        self._trial_seconds, self._counted = 0.0, self._begun

    def acquire(self, trial_id: str) -> None:
        """A trial has its machines from now on."""
        self._count()
        self._holders.add(trial_id)

    def release(self, trial_id: str) -> None:
        """A trial ended, or waits for another machine."""
        self._count()
        self._holders.discard(trial_id)

    def set_placed(self, trials: int) -> None:
        """How many trials have the machines of their workers from now on; the others wait for theirs."""
        self._count()
        self._placed = trials

    def _count(self) -> None:
        now = self._now()
        self._trial_seconds += min(len(self._holders), self._placed) * (now - self._counted)
        self._counted = now

    def elapsed(self) -> float:
        """Seconds of the search."""
        return self._before.get("elapsed_s", 0.0) + self._now() - self._begun

    def amounts(self) -> dict[str, float]:
        """Amounts spent so far, for the journal; budgets without a rate are left out."""
        self._count()
        hours = self._trial_seconds / HOUR
        spent = {name: round(self._before.get(name, 0.0) + hours * rate, 9) for name, rate in self._rates.items()}
        return {"elapsed_s": round(self.elapsed(), 1)} | spent

    def limit(self) -> str:
        """Which budget is used up, as a sentence; "" for none."""
        return next(self._limits(), "")

    def _limits(self) -> Iterator[str]:
        if self.elapsed() >= (self.budget.seconds or float("inf")):
            yield f"budget.time {self.budget.time} was reached after {format_duration(self.elapsed())}"
        spent = self.amounts()
        for name, unit in (("gpu_hours", "GPU-hours"), ("usd", "USD")):
            allowed: float | None = getattr(self.budget, name)
            if allowed is not None and spent.get(name, 0.0) >= allowed:
                yield f"budget.{name} {allowed:g} was reached after {spent[name]:.4g} {unit}"


def trial_limit(budget: Budget, trained_s: float) -> str:
    """Whether a trial that has trained for so many seconds has used up `trial_time`, as a sentence; "" for no."""
    if budget.trial_seconds is None or trained_s < budget.trial_seconds:
        return ""
    return f"budget.trial_time {budget.trial_time} was reached after {format_duration(trained_s)} of training"


def hourly_rates(space: SearchSpace) -> dict[str, float]:
    """GPU-hours and USD of one trial's hour; one that is free or has no price is left out."""
    resources = space.resources
    rates = {"gpu_hours": resources.workers * resources.gpus_per_worker, "usd": resources.usd_per_hour}
    return {name: rate for name, rate in rates.items() if rate}


def format_duration(duration: float) -> str:
    """Seconds as `m:ss` below an hour, `h:mm:ss` from there on."""
    minutes, rest = divmod(round(duration), 60)
    hours, minutes = divmod(minutes, 60)
    return f"{hours}:{minutes:02d}:{rest:02d}" if hours else f"{minutes}:{rest:02d}"
