"""The task table: what each task predicts, how it is trained, how it is judged (METHODS: shared ground, evaluation)."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass

from faar_ray.config.data_section import DataConfig
from faar_ray.config.task_definitions import METRICS, UNITS, TaskDefinition, TaskType
from faar_ray.tasks.losses import (
    Loss,
    balanced_edge_bce,
    balanced_saliency_bce,
    cross_entropy,
    depth_l1,
    normals_l1,
    regression_l1,
)


@dataclass(frozen=True, slots=True)
class Task:
    """One dense task."""

    name: str
    type: TaskType
    channels: int
    """Outputs of its head."""
    loss: Loss
    weight: float
    """w_t in L_MTL = sum_t w_t L_t."""
    metric: str
    """Name of the metric that delta_m uses."""
    metric_unit: str
    classes: tuple[str, ...] = ()
    """Names, of segmentation."""
    colours: tuple[str, ...] | None = None
    absent_are_zero: bool = False
    """Segmentation: a class without a pixel in labels and predictions counts as 0 in the mean IoU, or not at all."""
    floor: float | None = None
    """Depth: what predictions are raised to before they are judged."""

    @property
    def higher_is_better(self) -> bool:
        """Whether more of the metric is better."""
        return self.metric in HIGHER_IS_BETTER


LOSSES: dict[TaskType, Loss] = {
    "segmentation": cross_entropy,
    "binary": balanced_saliency_bce,
    "edge": balanced_edge_bce,
    "normals": normals_l1,
    "depth": depth_l1,
    "regression": regression_l1,
}
HIGHER_IS_BETTER = ("miou", "f1", "ods_f")
ANGLES = ("mean_angle", "rmse_angle")


def tasks_of(data: DataConfig) -> dict[str, Task]:
    """The tasks of a trial, in the order of `data.tasks`."""
    return {name: _task(name, data.definition(name), data) for name in data.tasks}


def _task(name: str, definition: TaskDefinition, data: DataConfig) -> Task:
    metric = definition.metric or METRICS[definition.type][0]
    own_unit = definition.unit if definition.unit is not None else UNITS.get(definition.type, "")
    unit = "%" if metric in HIGHER_IS_BETTER else "deg" if metric in ANGLES else own_unit
    assert definition.weight is not None
    return Task(
        name,
        definition.type,
        definition.channels,
        LOSSES[definition.type],
        definition.weight,
        metric,
        unit,
        definition.classes,
        definition.colours,
        absent_are_zero=data.absent_classes == "zero",
        floor=data.depth_floor,
    )


def delta_m(metrics: Mapping[str, float], references: Mapping[str, float], tasks: Mapping[str, Task]) -> float:
    """Mean relative gain over single-task references, percent (METHODS, evaluation).

    delta_m = 100/T sum_t (-1)^{l_t} (M_t - S_t) / S_t, with l_t = 1 where lower is better.

    A task without evidence, of which both numbers are NaN, is left out. Otherwise delta_m is NaN where a gain is not
    defined: where one of the two is NaN, or the reference is 0; and where no task is left.

    Args:
        metrics: M, task -> its metric.
        references: S, task -> the single-task model's metric; must hold every task of `metrics`.
        tasks: their directions.
    """
    pairs = {task: (value, references[task]) for task, value in metrics.items()}
    gains = [_gain(tasks[task], *pair) for task, pair in pairs.items() if not all(map(math.isnan, pair))]
    return 100.0 * sum(gains) / len(gains) if gains else math.nan


def _gain(task: Task, value: float, reference: float) -> float:
    sign = 1.0 if task.higher_is_better else -1.0
    return sign * (value - reference) / reference if reference else math.nan
