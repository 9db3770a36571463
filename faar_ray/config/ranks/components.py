"""What keeps a policy that puts numbers between a LoRA's two factors from a trial's other keys."""

from __future__ import annotations

from typing import Any

from faar_ray.config.moments.moment import START, MattersFrom, read_by_policy


def read_from_the_start(policy: str) -> MattersFrom:
    """Of a key that only this policy reads, from its first step on."""
    return MattersFrom(read_by_policy(policy, lambda config: START))


def between_factors_fault(config: Any) -> str:
    """Of AdaLoRA's singular values and AutoLoRA's selection variables."""
    kind = config.ranks.kind
    if fault := bases_fault(config):
        return fault
    if config.placement.task_path == "prompted":
        return (
            f"ranks.kind: must not be {kind} where placement.task_path is prompted: a filter of every component stands "
            "between the two factors, so that no number there switches a component off"
        )
    return ""


def bases_fault(config: Any) -> str:
    """Of policies whose components are scaled."""
    if config.adapter.entry.task_bases:
        return (
            f"ranks.kind: must not be {config.ranks.kind} where adapter.kind is {config.adapter.kind}: a base has a "
            "matrix between its factors and a sine around all three, so that components have no scale of their own"
        )
    return ""
