"""What a task is: the kinds that `tasks/` can train and judge, and the definitions of the papers' tasks."""

from __future__ import annotations

import re
from typing import Annotated, Literal, Self

from pydantic import Field, model_validator

from faar_ray.config.section import Positive, Section

TaskType = Literal["segmentation", "binary", "edge", "normals", "depth", "regression"]
METRICS: dict[TaskType, tuple[str, ...]] = {
    "segmentation": ("miou",),
    "binary": ("miou",),
    "edge": ("f1", "ods_f"),
    "normals": ("mean_angle", "rmse_angle"),
    "depth": ("rmse",),
    "regression": ("rmse",),
}
"""Metrics of each kind; delta_m uses the first unless a definition names another."""
SLOW_METRICS = ("ods_f",)
"""Computed on the test split; on val for tasks whose `metric` they are."""
WEIGHTS: dict[TaskType, float] = {
    "segmentation": 1.0,
    "binary": 5.0,
    "edge": 50.0,
    "normals": 10.0,
    "depth": 1.0,
    "regression": 1.0,
}
"""w_t in L_MTL = sum_t w_t L_t, of the papers' tasks of each kind (MTLoRA, FAAR)."""
UNITS: dict[TaskType, str] = {"depth": "m", "regression": ""}
TAKEN = frozenset(
    (
        *("image", "id", "shared", "all", "mean", "weighted_mean"),
        *("add_module", "apply", "bfloat16", "buffers", "call_super_init", "children", "clear", "compile", "cpu"),
        *("cuda", "double", "dump_patches", "eval", "extra_repr", "float", "forward", "half", "ipu", "items", "keys"),
        *("modules", "mtia", "parameters", "pop", "share_memory", "state_dict", "to", "to_empty", "train", "training"),
        *("type", "update", "values", "xpu", "zero_grad"),
    )
)
"""What columns, metrics, and the attributes of torch's modules are called: no names of tasks."""
TAKEN_TOO = re.compile(r"stage[0-9]+|(get|load|named|register|requires|set)_\w+")
MOST_CLASSES = 255
"""Labels are stored as bytes, and 255 is ignored."""
Name = Annotated[str, Field(pattern=r"^[a-z][a-z0-9_]*$")]
Colour = Annotated[str, Field(pattern=r"^#[0-9a-fA-F]{6}$")]


class TaskDefinition(Section):
    """One dense task of a data set."""

    type: TaskType = Field(description="What is predicted, and so the loss and the metrics.")
    classes: Annotated[tuple[str, ...], Field(max_length=MOST_CLASSES, strict=False)] = Field(
        (), description="`segmentation`: names of the classes 0, 1, ... of the labels, background included."
    )
    colours: Annotated[tuple[Colour, ...], Field(strict=False)] | None = Field(
        None, description="`segmentation`: a colour for each class in pictures, `#rrggbb`; null: chosen."
    )
    values: Annotated[tuple[int, ...], Field(strict=False)] | None = Field(
        None,
        description="`segmentation`: the value of each class in label files; null: 0, 1, 2, ...; of files in colours "
        "0xRRGGBB, null: `colours`. `binary`, `edge`: the two values that mean no and yes; null: 0, and 1 or 255.",
    )
    ignore: Annotated[tuple[float, ...], Field(strict=False)] | float | None = Field(
        None,
        description="Values of label files that mean: no label here. null: 255 for `segmentation`, unless it is a "
        "class or the files are in colours. NaN, infinite numbers and normals without length always mean it.",
    )
    unit: str | None = Field(None, description="`depth`, `regression`: unit of the labels; null: m for depth.")
    scale: Positive = Field(1.0, description="`depth`, `regression`: label files are multiplied by it.")
    weight: Positive | None = Field(None, description="Weight of the loss; null: as of the papers' tasks of this type.")
    metric: str | None = Field(
        None,
        description="Metric that delta_m uses; null: the type's first. `edge`: `ods_f` is computed on the test split, "
        "and with `metric: ods_f` in every epoch on val, which takes seconds per image.",
    )

    @model_validator(mode="after")
    def _parts_fit(self) -> Self:
        if self.type == "segmentation" and len(self.classes) < 2:
            raise ValueError(f"classes: must name two classes or more, got {list(self.classes)}")
        if self.type != "segmentation" and (self.classes or self.colours):
            raise ValueError(f"classes, colours: must not be given for type {self.type}")
        self._check_values()
        if self.metric is not None and self.metric not in METRICS[self.type]:
            raise ValueError(f"metric: must be one of {', '.join(METRICS[self.type])}, got {self.metric!r}")
        return self

    def _check_values(self) -> None:
        """Labels' values: one for each class, or two; all different, none of them ignored."""
        wanted = {"segmentation": len(self.classes), "binary": 2, "edge": 2}.get(self.type)
        if self.values is not None and wanted is None:
            raise ValueError(f"values: must not be given for type {self.type}")
        for key, value in (("colours", self.colours), ("values", self.values)):
            if value is None:
                continue
            if len(value) != wanted:
                classes = f"one for each of the {wanted} classes" if self.type == "segmentation" else "two, no and yes"
                raise ValueError(f"{key}: must have {classes}, got {len(value)}")
            if len(set(value)) < len(value):
                raise ValueError(f"{key}: must differ, got {list(value)}")
        ignored = self.ignored_values & set(self.values or ())
        if ignored:
            raise ValueError(f"ignore: must not be among `values`, got {', '.join(f'{one:g}' for one in ignored)}")

    @property
    def ignored_values(self) -> frozenset[float]:
        """`ignore` as a set; empty for null."""
        if self.ignore is None:
            return frozenset()
        return frozenset(self.ignore if isinstance(self.ignore, tuple) else (self.ignore,))

    @property
    def val_metrics(self) -> tuple[str, ...]:
        """Names of the metrics that every epoch reports."""
        own = self.metric or METRICS[self.type][0]
        return tuple(name for name in METRICS[self.type] if name == own or name not in SLOW_METRICS)

    @property
    def channels(self) -> int:
        """Outputs of the task's head."""
        return len(self.classes) if self.type == "segmentation" else 3 if self.type == "normals" else 1


def is_taken(name: str) -> bool:
    """Whether a task must not have this name."""
    return name in TAKEN or TAKEN_TOO.fullmatch(name) is not None


TYPES: dict[str, TaskType] = {
    "semseg": "segmentation",
    "human_parts": "segmentation",
    "saliency": "binary",
    "normals": "normals",
    "depth": "depth",
    "edge": "edge",
}
"""The papers' tasks."""
PAPER_WEIGHTS = {"human_parts": 2.0}
"""Those that differ from their type's."""
