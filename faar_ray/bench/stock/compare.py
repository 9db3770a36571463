"""What two ways of searching had found after the same number of epochs, over several seeds."""

from __future__ import annotations

from bisect import bisect_right
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from faar_ray.objectives.pareto import Points, hypervolume, non_dominated
from faar_ray.report.statistics.noise import mean_of
from faar_ray.report.statistics.over_time import MARGIN

OURS, STOCK = "faar_ray", "stock"
QUARTERS = (0.25, 0.5, 0.75, 1.0)


@dataclass(frozen=True)
class Ended:
    """A trial that a search is done with."""

    epochs: int
    finished: bool
    """Trained to its last epoch."""
    values: tuple[float, ...]
    """Of the objectives after its last epoch."""


@dataclass
class Run:
    """One search, its trials in the order in which they ended."""

    search: str
    seed: int
    ended: list[Ended] = field(default_factory=list)
    told_finished: int = 0
    """Trials that were stopped early and that Optuna was told as COMPLETE."""

    @property
    def epochs(self) -> int:
        """Spent in all."""
        return sum(trial.epochs for trial in self.ended)


@dataclass(frozen=True)
class Curve:
    """A search over what it spent."""

    run: Run
    epochs: tuple[int, ...]
    """Spent when each trial had ended, from 0."""
    found: tuple[float, ...]
    """Hypervolume of the front then, as a share of that of the ideal point."""

    def at(self, epochs: float) -> float:
        """What was found by then."""
        return self.found[bisect_right(self.epochs, epochs) - 1]


def curves(runs: Sequence[Run], signs: Sequence[float], *, finished: bool = True) -> list[Curve]:
    """Every search against one reference point: the worst finished values of all searches, moved out by a margin.

    Args:
        runs: of both ways and all seeds.
        signs: -1 for objectives to be maximised, 1 for others.
        finished: whether only trials count that trained to their end; else every trial, by its last epoch.
    """
    seen = np.array([losses(trial, signs) for run in runs for trial in run.ended if trial.finished])
    low, high = seen.min(axis=0), seen.max(axis=0)
    reference = high + MARGIN * np.where(high > low, high - low, np.maximum(np.abs(high), 1.0))
    box = float(np.prod(reference - low))
    return [_curve(run, signs, reference, box, finished) for run in runs]


def losses(trial: Ended, signs: Sequence[float]) -> Points:
    """A trial's objectives, all to be minimised."""
    signed: Points = np.array(signs) * np.array(trial.values)
    return signed


def _curve(run: Run, signs: Sequence[float], reference: Points, box: float, finished: bool) -> Curve:
    front, epochs, found = np.empty((0, len(signs))), [0], [0.0]
    for trial in run.ended:
        point = losses(trial, signs)
        if (trial.finished or not finished) and np.isfinite(point).all():
            front = non_dominated(np.vstack([front, point]))
        epochs.append(epochs[-1] + trial.epochs)
        found.append(hypervolume(front, reference) / box)
    return Curve(run, tuple(epochs), tuple(found))


def interval(values: Sequence[float]) -> tuple[float, float]:
    """Mean and half of its 95% interval (Student's t); infinite for a single value."""
    mean = mean_of(values)
    return mean.value, mean.ci95


def compared(runs: Sequence[Run], signs: Sequence[float]) -> dict[str, Any]:
    """Both ways after quarters of the epochs that every search spent, as plain values."""
    budget = min(run.epochs for run in runs)
    whole, rows = curves(runs, signs), []
    for share in QUARTERS:
        epochs = round(share * budget)
        found = {name: [c.at(epochs) for c in whole if c.run.search == name] for name in (OURS, STOCK)}
        apart = [ours - stock for ours, stock in zip(found[OURS], found[STOCK], strict=True)]
        rows.append({"epochs": epochs} | {name: interval(v) for name, v in (*found.items(), ("difference", apart))})
    last = curves(runs, signs, finished=False)
    return {
        "epochs": budget,
        "seeds": len(runs) // 2,
        "rows": rows,
        "counting_unfinished": {
            name: interval([c.at(budget) for c in last if c.run.search == name]) for name in (OURS, STOCK)
        },
        "searches": [
            {
                "search": run.search,
                "seed": run.seed,
                "trials": len(run.ended),
                "finished": sum(trial.finished for trial in run.ended),
                "epochs": run.epochs,
                "told_complete_but_stopped": run.told_finished,
                "found": curve.at(budget),
            }
            for run, curve in zip(runs, whole, strict=True)
        ],
    }
