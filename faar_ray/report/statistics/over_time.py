"""Progress of a search after each trial: hypervolume of its front, or best value of a single objective."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path

import numpy as np

from faar_ray.objectives.constraint import Constraint, feasible
from faar_ray.objectives.metrics import Objective
from faar_ray.objectives.pareto import Points, hypervolume, non_dominated
from faar_ray.records import TrialResult
from faar_ray.report.statistics.table import finite
from faar_ray.storage.atomic import atomic_write

MARGIN = 0.1
"""The reference point is the worst value of each objective, moved out by this share of the range."""


@dataclass(frozen=True)
class Step:
    """State of the search after a trial has ended, and all of its points."""

    trial_id: str
    state: str
    feasible: bool
    epochs: int
    """Epochs of all trials that have ended so far."""
    found: float | None
    """Hypervolume of the front, or best value so far; None before anything finished."""


@dataclass(frozen=True)
class OverTime:
    """A search, trial by trial, in the order in which trials ended."""

    objectives: tuple[Objective, ...]
    reference: tuple[float, ...]
    """The reference point; empty with one objective."""
    ideal: tuple[float, ...]
    """The best value of each objective: a single point there would have the largest hypervolume, `box`."""
    steps: tuple[Step, ...]

    @property
    def box(self) -> float:
        """Hypervolume of the ideal point."""
        return float(np.prod(np.abs(np.subtract(self.ideal, self.reference)))) if self.reference else 1.0


def over_time(
    results: Sequence[TrialResult],
    objectives: Sequence[Objective],
    limits: Sequence[Constraint],
    order: Mapping[str, int],
) -> OverTime | None:
    """Trace a search; None where no feasible trial finished.

    Args:
        results: all; trials of the search count, with their points; complete and feasible ones enter the front.
        objectives: one or several.
        limits: constraints.
        order: place of each trial id; where it is not known, that of the results counts.
    """
    trials = sorted((r for r in results if r.role == "trial"), key=lambda r: order.get(r.trial_id, len(order)))
    signs = np.array([-goal.sign for goal in objectives])
    points = {t.trial_id: [t, *(r for r in results if r.role == "point" and r.parent == t.trial_id)] for t in trials}
    losses = {
        r.trial_id: signs * [r.metrics[goal.name] for goal in objectives]
        for group in points.values()
        for r in group
        if r.state == "COMPLETE"
        and feasible(r.metrics, limits)
        and all(finite(r.metrics.get(goal.name)) for goal in objectives)
    }
    if not losses:
        return None
    finished = np.array(list(losses.values()))
    low, high = finished.min(axis=0), finished.max(axis=0)
    width = np.where(high > low, high - low, np.maximum(np.abs(high), 1.0))
    reference = high + MARGIN * width

    front, steps, spent, volume = np.empty((0, len(signs))), list[Step](), 0, None
    for trial in trials:
        group = points[trial.trial_id]
        spent += sum(one.epochs for one in group)
        for point in (losses[one.trial_id] for one in group if one.trial_id in losses):
            if not (front <= point).all(axis=1).any():
                front = non_dominated(np.vstack([front, point]))
                volume = _found(front, signs, reference)
        inside = any(feasible(one.metrics, limits) for one in group)
        steps.append(Step(trial.trial_id, trial.state, inside, spent, volume))

    several = len(signs) > 1
    return OverTime(tuple(objectives), tuple(signs * reference) if several else (), tuple(signs * low), tuple(steps))


def _found(front: Points, signs: Points, reference: Points) -> float:
    return hypervolume(front, reference) if len(signs) > 1 else float(signs[0] * front[0, 0])


def over_time_caption(traced: OverTime) -> str:
    """What the plot shows, and its reference point."""
    if not traced.reference:
        best = f"The best {traced.objectives[0].name} of single trials so far"
        return f"{best}; by chance the best of many looks better than it is."
    at = ", ".join(f"{goal.name} {value:.4g}" for goal, value in zip(traced.objectives, traced.reference, strict=True))
    return (
        f"Hypervolume of the front of single, feasible, finished trials. Reference point: {at}, the worst finished "
        f"values moved out by {MARGIN:.0%} of their range; 100% would be one trial with the best value of every "
        "objective. By chance a front of single trials looks better than it is. The numbers are in over_time.json."
    )


def write_over_time(path: Path, traced: OverTime) -> None:
    """The numbers behind the plot, as JSON."""
    contents = {
        "objectives": [goal.model_dump() for goal in traced.objectives],
        "reference_point": list(map(float, traced.reference)) or None,
        "ideal_point": list(map(float, traced.ideal)),
        "value": "hypervolume" if traced.reference else f"best {traced.objectives[0].name}",
        "steps": [asdict(step) for step in traced.steps],
    }
    with atomic_write(path) as scratch:
        scratch.write_text(json.dumps(contents, indent=1), encoding="utf-8")
