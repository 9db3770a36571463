"""The `tad` section: task streams that reuse shared factors (TADFormer)."""

from __future__ import annotations

from typing import Any, Literal

from pydantic import Field

from faar_ray.config.section import Section

FILTERED = ("proj", "fc1", "fc2")


class TadConfig(Section):
    """TADFormer's filters and skips; read where placement.task_path is prompted."""

    filter: Literal["dynamic", "static"] = Field(
        "dynamic",
        description="The 3x3 filters between the shared factors on the paths of tasks: made from each sample (the "
        "paper), or one per task with a bias (the released code).",
    )
    skip: Literal["aligned", "scrambled"] = Field(
        "aligned",
        description="What a stage's gate mixes into a task's stream: the tokens under the task's attention map, or the "
        "same numbers stored as (channels, tokens) and read as (tokens, channels), as the released code does.",
    )


def tad_fault(config: Any) -> str:
    """What keeps `placement.task_path: prompted` from a trial's other keys."""
    placement, adapter = config.placement, config.adapter
    if placement.task_path != "prompted" or not adapter.adapts:
        return ""
    if not adapter.entry.prompted:
        return (
            f"placement.task_path: must be own or shared where adapter.kind is {adapter.kind}: tasks reuse the two "
            "factors of a LoRA, with a filter between them"
        )
    if config.ranks.kind == "spectral" or (config.ranks.kind == "pdrs" and config.pdrs.basis == "spectral"):
        return (
            "placement.task_path: must be own or shared where adapters are rotated to singular components: every "
            "component has a filter of its own, and a sum of components has none"
        )
    for key in ("layers", "task_layers"):
        if missing := [layer for layer in FILTERED if layer not in getattr(placement, key)]:
            return f"placement.{key}: must hold proj, fc1 and fc2 where task_path is prompted, {missing[0]} is missing"
    if "qkv" in placement.task_layers:
        return "placement.task_layers: must not hold qkv where task_path is prompted: tasks part behind the attention"
    return ""
