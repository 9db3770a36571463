"""The `adalora` section: one budget of singular values for all adapters, which shrinks while they train."""

from __future__ import annotations

import math
from typing import Annotated, Any

from pydantic import AfterValidator, Field

from faar_ray.config.ranks.components import between_factors_fault, read_from_the_start
from faar_ray.config.section import Positive, Section
from faar_ray.config.validation_messages import rule

OfAdalora = read_from_the_start("adalora")


def _steps(value: float) -> float:
    if (isinstance(value, int) and value >= 0) or 0 <= value < 1:
        return value
    raise ValueError(f"must be a whole number of steps, or a share of all steps, 0 <= share < 1, got {value}")


Steps = Annotated[int | float, AfterValidator(_steps), OfAdalora]
Smoothing = Annotated[float, Field(gt=0, lt=1), rule("satisfy 0 < beta < 1"), OfAdalora]


class AdaloraConfig(Section):
    """AdaLoRA (Zhang et al. 2023): W' = W + alpha / r0 B diag(E) A, E cut to a budget."""

    alpha: Annotated[Positive, OfAdalora] = Field(
        16.0, description="The change is scaled by alpha / (initial rank + 1e-5), in place of adapter.scale."
    )
    target_rank: Annotated[Annotated[float, Field(gt=0)] | None, OfAdalora] = Field(
        None,
        description="Mean rank of all adapters at the end; null: two thirds of the mean initial rank (the authors' "
        "r0 = 1.5 r).",
    )
    t_init: Steps = Field(0.09, description="First steps without cuts: a number of them, or a share of all steps.")
    t_final: Steps = Field(
        0.58, description="Last steps, in which what is cut is settled: a number of them, or a share of all steps."
    )
    delta_t: Annotated[int, Field(ge=1), OfAdalora] = Field(
        1, description="Steps between cuts, which only the last ones make for good (the authors: 100)."
    )
    orthogonality: Annotated[float, Field(ge=0), OfAdalora] = Field(
        0.1,
        description="gamma: weight of the mean of ||A A^T - I|| and ||B^T B - I|| over adapters (HF PEFT: 0.5).",
    )
    beta1: Smoothing = Field(0.85, description="Smoothing of an entry's importance |w dL/dw|.")
    beta2: Smoothing = Field(0.85, description="Smoothing of its uncertainty.")

    def unsettled(self, epochs: int) -> int:
        """First epochs whose ends lie before the last `t_final` steps; all, where that is a number of steps."""
        return epochs if isinstance(self.t_final, int) else math.ceil((1 - self.t_final) * epochs)


def adalora_fault(config: Any) -> str:
    """What keeps AdaLoRA from a trial's other keys, or its schedule from itself."""
    own = config.adalora
    if isinstance(own.t_init, float) and isinstance(own.t_final, float) and own.t_init + own.t_final >= 1:
        return (
            f"adalora.t_final: t_init + t_final must be below 1, or no step is left to cut in, got {own.t_init:g} + "
            f"{own.t_final:g}"
        )
    return between_factors_fault(config)
