"""The `dylora` section: one training for every rank up to the initial one."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Annotated, Any

from pydantic import Field

from faar_ray.config.moments.moment import MattersFrom, last_end, read_by_policy
from faar_ray.config.ranks.components import bases_fault, read_from_the_start
from faar_ray.config.section import Positive, Section

OfDylora = read_from_the_start("dylora")
Rank = Annotated[int, Field(ge=1)]


class DyloraConfig(Section):
    """DyLoRA (Valipour et al. 2023): every step trains the first b components alone, b drawn for the whole model."""

    alpha: Annotated[Positive, OfDylora] = Field(
        16.0, description="The change at rank b is scaled by alpha / b, in place of adapter.scale."
    )
    rank: Annotated[Rank | None, OfDylora] = Field(
        None,
        description="Rank at which every epoch is evaluated, and to which adapters are cut at the end of the last one: "
        "what is exported. null: the initial rank.",
    )
    frozen: Annotated[bool, OfDylora] = Field(
        True,
        description="Only component b gets a gradient, those before it take part as they are (the authors' setting); "
        "false: all of the first b do.",
    )
    curve: Annotated[
        Annotated[tuple[Rank, ...], Field(strict=False)] | None, MattersFrom(read_by_policy("dylora", last_end))
    ] = Field(
        None,
        description="Ranks that are evaluated too at the end of the last epoch, on val: metrics rank_curve/<rank>/...",
    )


def dylora_fault(config: Any) -> str:
    """What keeps DyLoRA from a trial's other keys."""
    ranks, own, placement = config.ranks, config.dylora, config.placement
    if fault := bases_fault(config):
        return fault
    if placement.task_path == "prompted" and own.frozen:
        return (
            "dylora.frozen: must be false where placement.task_path is prompted: the filter of a component would train "
            "on where the component itself does not"
        )
    given = [ranks.init_rank, ranks.init_rank if ranks.task_init_rank is None else ranks.task_init_rank]
    given += [ranks.pattern] if ranks.pattern else []
    largest = max(max(rank.values()) if isinstance(rank, Mapping) else rank for rank in given)
    for key, values in (("rank", [own.rank or 1]), ("curve", own.curve or ())):
        if above := [rank for rank in values if rank > largest]:
            return f"dylora.{key}: must be at most the largest initial rank {largest}, got {above[0]}"
    return ""
