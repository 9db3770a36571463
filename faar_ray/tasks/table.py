"""The task table: what each task predicts, how it is trained, how it is judged (METHODS: shared ground, evaluation)."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass

from faar_ray.config.registries import DATASETS
from faar_ray.errors import ConfigError
from faar_ray.tasks.losses import (
    Loss,
    balanced_edge_bce,
    balanced_saliency_bce,
    cross_entropy,
    depth_l1,
    normals_l1,
)


@dataclass(frozen=True, slots=True)
class Task:
    """One dense task."""

    name: str
    loss: Loss
    weight: float
    """w_t in L_MTL = sum_t w_t L_t."""
    metric: str
    """Name of the metric that delta_m uses."""
    higher_is_better: bool
    metric_unit: str = ""


TASKS: dict[str, Task] = {
    task.name: task
    for task in (
        Task("semseg", cross_entropy, 1.0, "miou", True, "%"),
        Task("human_parts", cross_entropy, 2.0, "miou", True, "%"),
        Task("saliency", balanced_saliency_bce, 5.0, "miou", True, "%"),
        Task("normals", normals_l1, 10.0, "mean_angle", False, "deg"),
        Task("depth", depth_l1, 1.0, "rmse", False, "m"),
        Task("edge", balanced_edge_bce, 50.0, "f1", True, "%"),
    )
}


def output_channels(dataset: str, tasks: tuple[str, ...]) -> dict[str, int]:
    """Channels that each task's head puts out on a data set, in the order of `tasks`.

    Raises:
        ConfigError: the data set has no labels for a task.
    """
    have = DATASETS[dataset].channels
    if missing := [task for task in tasks if task not in have]:
        raise ConfigError(f"data.tasks: {dataset} has labels for {', '.join(have)}, got {', '.join(missing)}")
    return {task: have[task] for task in tasks}


def delta_m(metrics: Mapping[str, float], references: Mapping[str, float]) -> float:
    """Mean relative gain over single-task references, percent (METHODS, evaluation).

    delta_m = 100/T sum_t (-1)^{l_t} (M_t - S_t) / S_t, with l_t = 1 where lower is better.

    A task without evidence, of which both numbers are NaN, is left out. Otherwise delta_m is NaN where a gain is not
    defined: where one of the two is NaN, or the reference is 0; and where no task is left.

    Args:
        metrics: M, task -> its metric.
        references: S, task -> the single-task model's metric; must hold every task of `metrics`.
    """
    pairs = {task: (value, references[task]) for task, value in metrics.items()}
    gains = [_gain(task, *pair) for task, pair in pairs.items() if not all(map(math.isnan, pair))]
    return 100.0 * sum(gains) / len(gains) if gains else math.nan


def _gain(task: str, value: float, reference: float) -> float:
    sign = 1.0 if TASKS[task].higher_is_better else -1.0
    return sign * (value - reference) / reference if reference else math.nan
