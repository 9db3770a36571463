"""The metrics that a trial reports, by name, so that an objective or constraint can be checked before anything runs."""

from __future__ import annotations

import re
from collections.abc import Sequence
from typing import Literal

from pydantic import Field

from faar_ray.config.section import Section
from faar_ray.config.task_definitions import METRICS
from faar_ray.config.trial import TrialConfig

Goal = Literal["maximize", "minimize"]


class Objective(Section):
    """A metric to optimise."""

    name: str = Field(description="Metric, e.g. delta_m, trainable_params, time/step_ms, val/semseg/miou.")
    goal: Goal = Field(description="Which way is better.")

    @property
    def sign(self) -> float:
        """1 where more is better, else -1: `sign * value` is to be maximised."""
        return 1.0 if self.goal == "maximize" else -1.0


HYPERVOLUME = "front/hypervolume"
"""Of a trial's own points, in the product of the objectives' units: what a search with `front` maximises."""


def study_objectives(objectives: Sequence[Objective]) -> tuple[Objective, ...]:
    """The one value of a trial: the hypervolume of its points, or the best of them."""
    if len(objectives) > 1:
        return (Objective(name=HYPERVOLUME, goal="maximize"),)
    return tuple(Objective(name=f"front/{goal.name}", goal=goal.goal) for goal in objectives)


SINE_METRICS = (
    *("sine/effective_rank", "sine/effective_rank_base", "sine/mean", "sine/skew"),
    *("sine/omega_std/mean", "sine/omega_std/min", "sine/omega_std/max"),
)
PARTS = ("params/adapters", "params/decoder", "params/norms", "params/other")
"""`trainable_params` by part, which add up to it; `other` is what else of the backbone is trained."""
SMALLER_IS_BETTER = re.compile(
    r"trainable_params|sine/cosine|(params|train|rank|time|memory)/.*|.*/(mean_angle|rmse_angle|rmse)"
)


def metric_names(config: TrialConfig) -> tuple[str, ...]:
    """Names that every epoch of a trial reports, `val/<task>/<metric>` and `rank/<task>` of its tasks included."""
    tasks = config.data.tasks
    return (
        "delta_m",
        "trainable_params",
        *PARTS,
        *(f"val/{task}/{metric}" for task in tasks for metric in config.data.definition(task).val_metrics),
        "train/loss",
        *(f"train/loss/{task}" for task in tasks),
        "rank/mean",
        "rank/weighted_mean",
        "rank/shared",
        *(f"rank/{task}" for task in tasks),
        *(_of_sines(tasks) if config.has_sine_bases else ()),
        *(f"rank/stage{stage}" for stage in range(4)),
        "time/step_ms",
        "time/epoch_s",
        "memory/peak_mb",
    )


def how_to_report(name: str, config: TrialConfig) -> str:
    """What to set so that epochs report a metric that is too slow for every search; empty for other names."""
    for task in config.data.tasks:
        kind = config.data.definition(task).type
        for metric in METRICS[kind]:
            if name == f"val/{task}/{metric}" and name not in metric_names(config):
                key = f"base.data.definitions: {{{task}: {{type: {kind}, metric: {metric}}}}}"
                return f"{metric} takes seconds per image: where every epoch shall report it, set {key}"
    return ""


def _of_sines(tasks: Sequence[str]) -> tuple[str, ...]:
    """Those of every epoch: cosines of gradients are measured in some only."""
    of_pairs = ("sine/cosine",) if len(tasks) > 1 else ()
    return (*of_pairs, *SINE_METRICS, *(f"clock/omega/{task}" for task in tasks))


def goal_of(metric: str) -> Goal:
    """Which way is better, of a known metric."""
    return "minimize" if SMALLER_IS_BETTER.fullmatch(metric) else "maximize"
