"""The `pdrs` section: Performance-Driven Rank Shrinking (FAAR)."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Annotated, Literal

from pydantic import Field

from faar_ray.config.moments.moment import MattersFrom, first_decision, first_free_epoch, read_by_policy
from faar_ray.config.ranks.by_stage import NumberedByStage, OfStages, at_stage
from faar_ray.config.section import Positive, Section
from faar_ray.config.validation_messages import rule

Coverage = Annotated[float, Field(gt=0, le=1), rule("satisfy 0 < rho <= 1")]
CoverageOfStages = Annotated[dict[str, Coverage], NumberedByStage, OfStages]
FirstShrink = MattersFrom(read_by_policy("pdrs", first_decision))


class PdrsConfig(Section):
    """Performance-Driven Rank Shrinking (FAAR)."""

    beta: Annotated[float, Field(ge=0, lt=1), rule("satisfy 0 <= beta < 1")] = Field(
        0.98, description="EMA factor of the importance scores."
    )
    rho_shared: Annotated[Coverage | CoverageOfStages, FirstShrink] = Field(
        0.95, description="Coverage ratio rho of shared adapters; also per stage: {0: 0.8, 1: 0.8, 2: 0.9, 3: 0.95}."
    )
    rho_task: Annotated[Coverage | CoverageOfStages | None, FirstShrink] = Field(
        None, description="Coverage ratio rho of task adapters, also per stage; null: as rho_shared."
    )
    scope: Annotated[Literal["adapter", "pooled"], FirstShrink] = Field(
        "adapter",
        description="Coverage within each adapter, or pooled over all shared and over all task adapters "
        "(over those of a stage where rho is given per stage).",
    )
    update: Literal["active", "all"] = Field(
        "active", description="Whose EMA moves in a step: only components under the prefix mask, or all."
    )
    bias_correction: bool = Field(
        True,
        description="Divide a component's EMA by 1 - beta^n, n the steps that scored it. Without it (the paper's EMA, "
        "taken literally) components that were scored less often count for less, at equal importance.",
    )
    score_clamp: Positive | None = Field(
        None,
        description="Largest score in a step, in medians of all scores of the adapter, where components that are "
        "masked or dropped have 0: a prefix of half of them or less scores nothing (the released code: 100). null: "
        "no limit.",
    )
    scored_gradients: Literal["whole", "clipped"] = Field(
        "whole",
        description="Gradients that components are scored by: before `optim.clip`, or after it (the released code).",
    )
    dropped: Literal["forgotten", "counted"] = Field(
        "forgotten",
        description="Whether the coverage is a share of the importance of the components that are left, or of all: "
        "dropped ones then keep their scores, which fade where `update` is all (the released code).",
    )
    start_epoch: Annotated[int, Field(ge=0), FirstShrink] = Field(
        0, description="First epoch (0-based) that ends with a shrink."
    )
    free_epochs: Annotated[int, Field(ge=0), MattersFrom(read_by_policy("pdrs", first_free_epoch))] = Field(
        0, description="Last epochs without masks and shrinks."
    )
    floor: Annotated[int, Field(ge=1), FirstShrink] = Field(1, description="Components every adapter keeps at least.")
    margin: Annotated[int, Field(ge=0), FirstShrink] = Field(0, description="Components kept beyond the coverage.")
    floor_holds_margin: Annotated[bool, FirstShrink] = Field(
        False,
        description="Where K components reach the coverage, keep max(floor, K + margin), as the released code does, in "
        "place of max(floor, K) + margin.",
    )
    basis: Annotated[Literal["raw", "spectral"], FirstShrink] = Field(
        "raw",
        description="What is scored: components as they are trained, or after a rotation at each epoch's end that "
        "decides (`spectral.rotation`), by the gradients of `spectral.score_batches` batches.",
    )
    mask_share: Annotated[float, Field(ge=0, le=1), rule("satisfy 0 <= mask_share <= 1")] = Field(
        1.0, description="Share of the steps before the free epochs that have prefix masks."
    )

    def rho(self, *, shared: bool, stage: int = 0) -> float:
        """Coverage ratio of shared or of task adapters, in a stage."""
        return at_stage(self._rho(shared), stage)

    def rho_by_stage(self, *, shared: bool) -> bool:
        """Whether each stage has a coverage ratio of its own."""
        return isinstance(self._rho(shared), Mapping)

    def _rho(self, shared: bool) -> float | dict[str, float]:
        return self.rho_shared if shared or self.rho_task is None else self.rho_task
