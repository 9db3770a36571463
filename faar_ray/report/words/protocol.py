"""How the numbers were measured, in sentences, so that they are compared with the right ones."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

from faar_ray.config.data_section import DataConfig
from faar_ray.config.task_definitions import UNITS, TaskType
from faar_ray.config.trial import TrialConfig
from faar_ray.records import TrialResult, known

METRICS: dict[TaskType, str] = {
    "segmentation": "mean IoU over {classes}, pixel counts pooled over images (%)",
    "binary": "foreground Jaccard per image, averaged; the best of 15 thresholds 0.2 to 0.9 (%)",
    "normals": "mean angular error (degrees; the papers call it rmse), the true rmse beside it",
    "depth": "RMSE over pooled pixels ({unit}){floor}",
    "regression": "RMSE over pooled pixels ({unit})",
    "edge": "pixel F1 without tolerance (%), on test odsF with one of 0.75 % of the diagonal beside it",
}
MEASURED_BY = ("name", "image_size", "evaluation", "protocol", "absent_classes", "depth_floor")
"""Keys of `data` that decide how numbers are measured."""


def protocol(config: TrialConfig | None, results: Sequence[TrialResult]) -> Iterator[str]:
    """Sentences on data, splits, metrics and delta_m."""
    if config is not None:
        yield f"Data set {config.data.name}; {_evaluation(config.data)}."
        if config.data.name != "scenes":
            yield _splits(config.data)
        yield "; ".join(_metric_sentence(config, task) for task in config.data.tasks) + "."
    yield (
        "delta_m: mean over tasks of the relative gain on the single-task reference, in per cent, signed so that more "
        "is better; 0 equals single-task models. A task without labels in a split is left out of its mean."
    )
    yield "Every value is from the last epoch, not the best one."
    if any(name.startswith("test/") for r in results for name in r.metrics):
        yield "The search used the val split; the test split was read once, at the end."
    else:
        yield "All values are of the val split, which the search used; the test split was not read."


def measured_as(data: DataConfig, results: Sequence[TrialResult]) -> str:
    """The splits of a table's numbers and how they were measured, short: `val and test: resized 448x448`.

    Args:
        data: of the base.
        results: of the table; where they searched a size, all are named.
    """
    ways = dict.fromkeys(_data_of(data, result).evaluated_as for result in results) or {data.evaluated_as: None}
    has_test = any(name.startswith("test/") for result in results for name in result.metrics)
    return f"{'val and test' if has_test else 'val'}: {' or '.join(ways)}"


def _data_of(data: DataConfig, result: TrialResult) -> DataConfig:
    own = {key: result.params[f"data.{key}"] for key in MEASURED_BY if f"data.{key}" in result.params}
    return data.model_copy(update=own)


def _evaluation(data: DataConfig) -> str:
    height, width = data.size
    if data.evaluation == "original":
        return f"images resized to {height} x {width} pixels, predictions compared at the labels' own size (original)"
    return f"predictions and labels compared at {height} x {width} pixels (resized)"


def _splits(data: DataConfig) -> str:
    if data.protocol == "papers":
        return "Protocol of the papers: the published val split chose and judged (data.protocol: papers)."
    return (
        f"Val is {data.val_share:.0%} of the published training images and test the published val split, unless the "
        "data set has a test split of its own (data.protocol: search)."
    )


def _metric_sentence(config: TrialConfig, task: str) -> str:
    definition = config.data.definition(task)
    unit = definition.unit or UNITS.get(definition.type) or "the labels' unit"
    skips, floor = config.data.absent_classes == "skip", config.data.depth_floor
    words = {
        "unit": unit,
        "classes": "classes that occur in labels or predictions" if skips else "all classes, absent ones as 0",
        "floor": "" if floor is None else f", predictions raised to {floor:g}",
    }
    return f"{task}: {METRICS[definition.type].format(**words)}"


def reference_values(results: Sequence[TrialResult]) -> list[tuple[str, str, float]]:
    """(trial id, metric, value) of the single-task references."""
    return [
        (r.trial_id, name.removeprefix("val/"), value)
        for r in results
        if r.role == "reference"
        for name, value in known(r.metrics).items()
        if name.startswith("val/")
    ]
