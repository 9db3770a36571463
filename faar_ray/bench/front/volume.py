"""The hypervolume of what ways of searching have found, over the epochs that they trained. Pure functions."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import accumulate

import numpy as np

from faar_ray.bench.front.rows import SIZE, TEST, VAL, Row
from faar_ray.bench.front.studies import Box
from faar_ray.objectives.pareto import hypervolume
from faar_ray.report.words.wording import count

ONE_RUN, ONLY_CUT, FIXED, FAAR = "one run, cut and forked", "one run, only cut", "fixed ranks", "FAAR"
"""Ways of getting a front."""


@dataclass(frozen=True)
class Step:
    """A training, or the rest of one, and the rows that it gives."""

    epochs: float
    rows: tuple[Row, ...]


@dataclass(frozen=True)
class Curve:
    """A way of searching after each of its trainings."""

    name: str
    epochs: tuple[float, ...]
    """Trained so far."""
    found: tuple[Mapping[int, float], ...]
    """Hypervolume so far by seed, as a share of the box, on val."""
    tested: tuple[Mapping[int, float], ...]
    """The same on test."""
    labels: tuple[str, ...]

    def at(self, epochs: float) -> Mapping[int, float]:
        """By seed, what was found for so many epochs; empty before the first training's end."""
        done = [found for spent, found in zip(self.epochs, self.found, strict=True) if spent <= epochs]
        return done[-1] if done else {}


def volume(points: Sequence[tuple[float, float]], box: Box) -> float:
    """Hypervolume of (delta_m, size) points as a share of the box; what lies beyond its ideal side counts up to it."""
    (low, high), (large, small) = box.quality, box.size
    losses = np.array([[-min(quality, high), max(size, small)] for quality, size in points], dtype=np.float64)
    whole = (high - low) * (large - small)
    return hypervolume(losses.reshape(-1, 2), np.array([-low, large])) / whole


def curve(name: str, steps: Sequence[Step], box: Box, seeds: Sequence[int]) -> Curve:
    """What a sequence of trainings has found after each of them.

    Args:
        name: of the way of searching.
        steps: in order.
        box: of the hypervolume.
        seeds: that every row has.
    """
    epochs = tuple(accumulate(step.epochs for step in steps))
    rows = [[row for step in steps[: end + 1] for row in step.rows] for end in range(len(steps))]
    val, test = (
        tuple({seed: volume(points_of(so_far, seed, metric), box) for seed in seeds} for so_far in rows)
        for metric in (VAL, TEST)
    )
    return Curve(name, epochs, val, test, tuple(map(_label, steps)))


def points_of(rows: Sequence[Row], seed: int, metric: str) -> list[tuple[float, float]]:
    """(delta_m, size) of one seed; rows without the metric are left out."""
    return [(row.by_seed(metric)[seed], row.by_seed(SIZE)[seed]) for row in rows if seed in row.by_seed(metric)]


def best_order(steps: Sequence[Step], box: Box, seeds: Sequence[int], first: Sequence[Step] = ()) -> list[Step]:
    """The trainings in the order that finds most, one by one, on the mean over seeds: the best that a planner with
    knowledge of all results could do with them.

    Args:
        steps: in any order.
        box: of the hypervolume.
        seeds: that every row has.
        first: trainings that come before the others.
    """
    chosen, rest = list(first), [step for step in steps if step not in first]
    while rest:
        best = max(rest, key=lambda step: (_mean(curve("", [*chosen, step], box, seeds)), -step.epochs))
        chosen.append(best)
        rest.remove(best)
    return chosen


def _mean(traced: Curve) -> float:
    return float(np.mean([*traced.found[-1].values()]))


def whole_trainings(rows: Sequence[Row]) -> list[Step]:
    """Each row is a training of its own."""
    return [Step(row.epochs, (row,)) for row in rows]


def one_run(rows: Sequence[Row], scoring: float) -> list[Step]:
    """The trunk with all rows that are cut at its end, then each fork: the rest of its epochs.

    Args:
        rows: of the front, with its trunk.
        scoring: epochs that the gradients of a rotation cost, for each row that is cut.
    """
    whole = tuple(row for row in rows if row.trained == row.epochs)
    cuts = sum(row.kind == "spectral" for row in whole)
    forks = [row for row in rows if row.trained < row.epochs]
    epochs = max((row.epochs for row in rows), default=0)
    return [Step(epochs + scoring * cuts, whole), *_forks(forks, scoring)]


def _forks(rows: Sequence[Row], scoring: float) -> Iterator[Step]:
    for row in rows:
        yield Step(row.epochs - row.trained + scoring, (row,))


def _label(step: Step) -> str:
    if len(step.rows) > 1:
        return f"{len(step.rows)} sizes"
    return f"{step.rows[0].name}: {count(step.rows[0].size)}"
