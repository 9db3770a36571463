"""Keys that are a number, or a number for each stage."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, TypeVar

from pydantic import BeforeValidator

from faar_ray.config.validation_messages import rule

Number = TypeVar("Number", int, float)
STAGES = ("0", "1", "2", "3")


def _numbered(raw: Any) -> Any:
    """Stage keys as text, in order; a stage too many or too few is a fault."""
    if not isinstance(raw, Mapping):
        return raw
    named = {str(key): value for key, value in raw.items()}
    if set(named) != set(STAGES):
        raise ValueError(f"must have a number for each of the stages 0, 1, 2, 3, got {', '.join(named) or 'none'}")
    return {stage: named[stage] for stage in STAGES}


NumberedByStage = BeforeValidator(_numbered)
OfStages = rule("a mapping of the stages 0, 1, 2, 3 to numbers")


def at_stage(value: Number | Mapping[str, Number], stage: int) -> Number:
    """A key that is a number, or a number for each stage."""
    return value[str(stage)] if isinstance(value, Mapping) else value
