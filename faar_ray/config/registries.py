"""ADAPTERS and RANK_POLICIES: what `adapter.kind` and `ranks.kind` may name, and what each of them can do.

They stand below the rooms that build adapters and policies, because a config is checked without torch. So a shipped
entry names its builder as `module:function`, which is imported on first use; an entry of other code holds the function.
"""

from __future__ import annotations

import pkgutil
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any, Literal

from pydantic import BeforeValidator, WithJsonSchema
from pydantic_core import PydanticKnownError

Builder = Callable[..., Any] | str


@dataclass(frozen=True, slots=True)
class AdapterEntry:
    """One value of `adapter.kind`."""

    build: Builder | None
    """(weight_OI, rank, AdapterConfig) -> LoRA; None: nothing is adapted."""
    task_bases: bool = False
    """Tasks' weights come from sine-modulated bases (`sinewich`) and a clock, in place of task adapters."""
    all_blocks: bool = True
    """Takes `placement.task_blocks: all`."""
    shared_input: bool = True
    """Takes `placement.task_path: shared`: its `change()` is never None."""
    peft: Literal["lora", "dora"] | None = None
    """The adapter of HF PEFT that it equals, if any: then its ranks can be exported as a rank pattern."""


@dataclass(frozen=True, slots=True)
class PolicyEntry:
    """One value of `ranks.kind`."""

    build: Builder
    """(TrialConfig, adapters) -> RankPolicy."""
    needs_adapters: bool = True
    """Has nothing to decide where `adapter.kind` is `none`."""


ADAPTERS: dict[str, AdapterEntry] = {
    "none": AdapterEntry(None),
    "lora": AdapterEntry("faar_ray.adapters.build:build_lora", peft="lora"),
    "dora": AdapterEntry("faar_ray.adapters.build:build_dora", peft="dora"),
    "sine_awb": AdapterEntry(
        "faar_ray.adapters.build:build_lora", task_bases=True, all_blocks=False, shared_input=False
    ),
}

RANK_POLICIES: dict[str, PolicyEntry] = {
    "fixed": PolicyEntry("faar_ray.ranks.policy:build_fixed", needs_adapters=False),
    "pdrs": PolicyEntry("faar_ray.ranks.pdrs:build_pdrs"),
}


def load_builder(build: Builder) -> Callable[..., Any]:
    """The function of an entry, imported if it is named by its place."""
    builder: Callable[..., Any] = pkgutil.resolve_name(build) if isinstance(build, str) else build
    return builder


def name_in(registry: Mapping[str, object]) -> tuple[BeforeValidator, WithJsonSchema]:
    """What makes a text field take the names of a registry as it is when a config is checked."""

    def validate(value: Any) -> Any:
        if isinstance(value, str) and value in registry:
            return value
        *others, last = map(repr, registry)
        raise PydanticKnownError("literal_error", {"expected": f"{', '.join(others)} or {last}"})

    return BeforeValidator(validate), WithJsonSchema({"enum": [*registry], "type": "string"})
