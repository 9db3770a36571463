"""Rows that flow upward, from the training loop to the search, the tracker and the report."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from typing import Annotated, Any, Literal, cast

Int16 = Annotated[int, "int16"]
Int32 = Annotated[int, "int32"]
Int64 = Annotated[int, "int64"]
Float32s = Annotated[tuple[float, ...], "float32s"]
"""The annotation names the column's type in Parquet; plain `float` is float64, `str` is string."""
Extra = float | int | str | tuple[float, ...]


@dataclass(frozen=True, slots=True)
class RankRecord:
    """One adapter at the end of one epoch; its fields are the columns of the rank trace after `trial_id`."""

    epoch: Int32
    """0-based; the row is made after this epoch's shrink."""
    stage: Int16
    block: Int16
    layer: str
    task: str
    """A task's name, or `shared`."""
    rank_before: Int32
    rank: Int32
    scope: str
    """`adapter` or `pooled`."""
    rho: float
    """The coverage ratio that was applied; 1.0 where nothing was decided, or not by a coverage."""
    coverage: float
    """Share of the scope's importance that the kept components hold."""
    importance: Float32s
    """float32 scores of the decision, descending, components without a score last as 0; length `rank_before`."""
    unobserved: Int32
    """Components that no step could score so far: kept whatever rho says, as all are at rho 1."""
    params: Int64
    """Trainable parameters of this adapter after the shrink."""
    extra: Mapping[str, Extra] = field(default_factory=dict)
    """Further columns of the trace, named by the rank policy; null in the rows of records without them."""


@dataclass(frozen=True, slots=True)
class SineRecord:
    """One task's weights sin(omega_t M) of one base at the end of one epoch; the sine trace's columns.

    For weights that are all 0, skew and effective ranks are 0 and the cosines are 1.
    """

    epoch: Int32
    """0-based."""
    stage: Int16
    """0-based; 4 is the decoder."""
    block: Int16
    layer: str
    task: str
    omega: float
    mean: float
    """Of M's entries, as are `std` and `skew`; the theory assumes zero mean and symmetry."""
    std: float
    skew: float
    omega_std: float
    """|omega| * std; only this product matters (Proposition 1)."""
    rank: Int32
    """Components of M; of the decoder's base its smaller side."""
    effective_rank: float
    """Of M: exp of the entropy of its singular values' shares."""
    effective_rank_task: float
    """The same of M_t = sin(omega_t M)."""
    cosine: float | None
    """Mean cosine of this task's weights with every other task's; None with one task."""
    gradient_cosine: float | None
    """Mean cosine of this task's gradient on the base with every other task's; None where it was not measured."""


MEASURED = ("time/", "memory/")
"""Beginnings of metrics that equal runs do not share: they depend on the machine and on what else runs on it."""


@dataclass(frozen=True, slots=True)
class EpochRecord:
    """What one epoch of one trial gave."""

    epoch: int
    metrics: dict[str, float]
    """Flat MLflow names: `train/loss`, `val/<task>/<metric>`, `rank/mean`, `trainable_params`, `time/epoch_s`, ...

    What has no evidence is NaN: metrics and loss of a task without labels.
    """
    ranks: tuple[RankRecord, ...] = field(default=())
    sines: tuple[SineRecord, ...] = field(default=())


State = Literal["COMPLETE", "PRUNED", "FAIL", "RUNNING"]
Role = Literal["trial", "point", "reference", "control", "prefix"]
FOUND: tuple[Role, ...] = ("trial", "point")
"""Roles of what the search itself found."""
BUDGET, CUT_EPOCH = "ranks.budget", "spectral.cut_epoch"
"""Keys that a point sets beside its trunk's: its size, and the 0-based epoch whose end cuts its ranks."""


@dataclass(frozen=True, slots=True)
class TrialResult:
    """One (config, seed) when it ended; a row of `results.parquet`."""

    trial_id: str
    config_id: str
    seed: int
    role: Role
    """`trial` was proposed by the search, `point` is a trial cut to a smaller size, `control` was given by the user
    beside it, `reference` is a single-task run."""
    state: State
    params: dict[str, Any]
    """Searched keys (dotted) and their values; of a point also its size and cut; of a control, the keys it sets."""
    metrics: dict[str, float]
    """Last epoch's metrics; `delta_m` on val, and `test/delta_m`, `test/<task>/<metric>` where test was read.

    One without evidence is absent.
    """
    seconds: float
    epochs: int
    """Epochs that it trained to their end; those that it inherited are its parent's."""
    run_id: str = ""
    """MLflow run."""
    reason: str = ""
    """Why it was stopped or failed."""
    parent: str = ""
    """The trial or prefix whose checkpoint it began with; "" for a copy of pbt."""
    inherited: int = 0
    """Epochs of that checkpoint that other rows count; those of a prefix are counted by the first trial that forks."""

    @property
    def reached(self) -> int:
        """Epochs behind its weights, inherited ones too."""
        return self.inherited + self.epochs


def known(metrics: Mapping[str, float | None]) -> dict[str, float]:
    """The metrics that have a value: without NaN, which stands for no evidence."""
    return {name: value for name, value in metrics.items() if value is not None and not math.isnan(value)}


def json_metrics(metrics: Mapping[str, float]) -> dict[str, float | None]:
    """Metrics for JSON, which has neither NaN nor infinity: null in their place."""
    return {name: value if math.isfinite(value) else None for name, value in metrics.items()}


def row_of(result: TrialResult) -> dict[str, Any]:
    """A result as JSON."""
    return asdict(result) | {"metrics": json_metrics(result.metrics)}


def result_of(row: Mapping[str, Any]) -> TrialResult:
    """Undo `row_of`; metrics that are null are left out."""
    return TrialResult(**cast("dict[str, Any]", {**row, "metrics": known(row["metrics"])}))
