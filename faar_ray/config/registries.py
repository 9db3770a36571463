"""ADAPTERS, RANK_POLICIES, DATASETS: what `adapter.kind`, `ranks.kind`, `data.name` may name, and what each can do.

They stand below the rooms that build them, because a config is checked without torch. So a shipped
entry names its builder as `module:function`, which is imported on first use; an entry of other code holds the function.
"""

from __future__ import annotations

import pkgutil
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Literal

from pydantic import BeforeValidator, WithJsonSchema
from pydantic_core import PydanticKnownError

from faar_ray.config.class_names import CITYSCAPES, HUMAN_PARTS, NYUD, PASCAL, SCENES

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
    has_ranks: bool = True
    """Has components that a rank policy may drop."""
    spectra: bool = False
    """Warps singular values, as `spectrum` says: `build` takes (linear, site, SpectrumConfig)."""
    reason: str = ""
    """Why it takes no `shared_input` or has no ranks, for messages."""
    prompted: bool = False
    """Takes `placement.task_path: prompted`."""
    peft: Literal["lora", "dora"] | None = None
    """The adapter of HF PEFT that it equals, if any: then its ranks can be exported as a rank pattern."""


def no_epochs(config: Any) -> int:
    """A policy whose ranks are settled from the start."""
    return 0


@dataclass(frozen=True, slots=True)
class PolicyEntry:
    """One value of `ranks.kind`."""

    build: Builder
    """(TrialConfig, adapters) -> RankPolicy."""
    needs_adapters: bool = True
    """Has nothing to decide where `adapter.kind` is `none`."""
    first_decision: Callable[[Any], int | None] = lambda config: 0
    """TrialConfig -> the first epoch (0-based) whose end may change ranks, weights or moments; None: no epoch's."""
    silent: bool = False
    """Until its first decision it changes nothing that `fixed` leaves alone, in the training or the records."""
    reads: tuple[str, ...] | None = None
    """Sections of the config that it depends on beside `ranks`; None: unknown."""
    carries: bool = False
    """Keeps its scores under several values of `pdrs.beta` at once, where it is asked to (`RankPolicy.carry`)."""
    inherit: Builder | None = None
    """(TrialConfig, policy's state in the parent, EpochRecords) -> the records as the fork itself would have made them;
    None: as they are."""
    plans: bool = False
    """What it does in any epoch depends on `optim.epochs`."""
    prepare: Builder | None = None
    """(adapter, TrialConfig) -> None: what it gives a fresh adapter, drawn from a stream of its own."""
    scale: Callable[[Any, int, int], float] | None = None
    """(TrialConfig, initial rank, rank) -> s in W + s B A, in place of what the adapter has."""
    fault: Builder | None = None
    """TrialConfig -> what keeps the policy from the other keys, "" if nothing does."""
    unsettled_epochs: Callable[[Any], int] = no_epochs
    """TrialConfig -> its first epochs, in which components are masked or still to be dropped: metrics there do not tell
    the end, and early stopping does not compare."""


@dataclass(frozen=True, slots=True)
class DatasetEntry:
    """One value of `data.name`."""

    channels: Mapping[str, int]
    """Output channels of each task that it has labels for; of the papers' names (`semseg`, ...) only."""
    classes: Mapping[str, Sequence[str]] = field(default_factory=dict)
    """Names of the classes of tasks that have some."""
    open: Builder | None = None
    """(DataConfig, split) -> Reader (data/datasets.py); None: its tasks are known, it cannot be read yet."""
    shards: Builder | None = None
    """() -> ShardSet (data/shards/shard_set.py); None: every machine reads it from `data.root` or makes it itself."""
    describe: Builder | None = None
    """root -> its tasks, `{name: TaskDefinition}`; None: `channels` says it all."""
    needs_root: bool = False
    """Cannot be read without `data.root`."""
    domains: tuple[str, ...] = ()
    """Values of `data.domain` that it distinguishes."""


ADAPTERS: dict[str, AdapterEntry] = {
    "none": AdapterEntry(None),
    "lora": AdapterEntry("faar_ray.adapters.build:build_lora", prompted=True, peft="lora"),
    "dora": AdapterEntry("faar_ray.adapters.build:build_dora", peft="dora"),
    "sine_awb": AdapterEntry(
        "faar_ray.adapters.build:build_lora", task_bases=True, all_blocks=False, shared_input=False
    ),
    "spectrum": AdapterEntry(
        "faar_ray.adapters.build:build_warp",
        shared_input=False,
        has_ranks=False,
        spectra=True,
        reason="it moves the singular values of W by a few numbers each: there are no rank-one components to drop, and "
        "no change apart from W that a task's stream could see alone",
    ),
}

RANK_POLICIES: dict[str, PolicyEntry] = {
    "fixed": PolicyEntry(
        "faar_ray.ranks.policy:build_fixed",
        needs_adapters=False,
        first_decision=lambda config: None,
        silent=True,
        reads=(),
    ),
    "pdrs": PolicyEntry(
        "faar_ray.ranks.spectral.pdrs:build_pdrs",
        first_decision=lambda config: config.pdrs.start_epoch,
        reads=("pdrs", "spectral"),
        carries=True,
        inherit="faar_ray.ranks.inherited:inherited_scores",
        unsettled_epochs=lambda config: config.optim.epochs - config.pdrs.free_epochs,
    ),
    "spectral": PolicyEntry(
        "faar_ray.ranks.spectral.policy:build_spectral",
        first_decision=lambda config: config.spectral.cut_after(config.optim.epochs),
        silent=True,
        reads=("spectral",),
        unsettled_epochs=lambda config: (
            0 if config.ranks.budget is None else 1 + config.spectral.cut_after(config.optim.epochs)
        ),
    ),
    "adalora": PolicyEntry(
        "faar_ray.ranks.adalora:build_adalora",
        first_decision=lambda config: config.optim.epochs - 1,
        reads=("adalora",),
        plans=True,
        prepare="faar_ray.adapters.prepare:give_singular_values",
        scale=lambda config, initial, rank: config.adalora.alpha / (initial + 1e-5),
        fault="faar_ray.config.ranks.adalora_section:adalora_fault",
        unsettled_epochs=lambda config: config.adalora.unsettled(config.optim.epochs),
    ),
    "dylora": PolicyEntry(
        "faar_ray.ranks.dylora:build_dylora",
        first_decision=lambda config: config.optim.epochs - 1,
        reads=("dylora",),
        prepare="faar_ray.adapters.prepare:scale_by_rank",
        scale=lambda config, initial, rank: config.dylora.alpha / rank,
        fault="faar_ray.config.ranks.dylora_section:dylora_fault",
    ),
}

DATASETS: dict[str, DatasetEntry] = {
    "scenes": DatasetEntry(
        {"semseg": 9, "human_parts": 7, "saliency": 1, "normals": 3, "depth": 1, "edge": 1},
        {"semseg": SCENES, "human_parts": HUMAN_PARTS},
        open="faar_ray.data.scenes.reader:SceneReader",
        shards="faar_ray.data.scenes.scene_shards:scene_shards",
        domains=("source", "target"),
    ),
    "pascal_context": DatasetEntry(
        {"semseg": 21, "human_parts": 7, "saliency": 1, "normals": 3, "edge": 1},
        {"semseg": PASCAL, "human_parts": HUMAN_PARTS},
        open="faar_ray.data.photographs.pascal_context:PascalContext",
        needs_root=True,
    ),
    "nyud": DatasetEntry(
        {"semseg": 40, "normals": 3, "depth": 1, "edge": 1},
        {"semseg": NYUD},
        open="faar_ray.data.photographs.nyud:Nyud",
        needs_root=True,
    ),
    "cityscapes": DatasetEntry(
        {"semseg": 19, "depth": 1},
        {"semseg": CITYSCAPES},
        open="faar_ray.data.photographs.cityscapes:Cityscapes",
        needs_root=True,
    ),
    "folder": DatasetEntry(
        {},
        open="faar_ray.data.photographs.folder:Folder",
        describe="faar_ray.data.photographs.dataset_yaml:describe",
        needs_root=True,
    ),
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
