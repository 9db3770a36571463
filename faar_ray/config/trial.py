"""The config of one trial: frozen, strict, validated at birth.

A method is a composition of `adapter` x `ranks` x `decoder` x `placement`; `method` names a preset and `recipe` a way
of training, which only supply defaults: every key that the user writes wins over them, and the method's preset over the
recipe. `TrialConfig.resolve` is the one way in.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterator, Mapping, Sequence
from functools import reduce
from typing import Annotated, Any, Literal, Self

from pydantic import Field, model_validator

from faar_ray.config.adapters.sinewich_section import SinewichConfig, sinewich_fault
from faar_ray.config.adapters.spectrum_section import SpectrumConfig
from faar_ray.config.adapters.tad_section import TadConfig, tad_fault
from faar_ray.config.data_section import DataConfig
from faar_ray.config.decoders.decoder_section import DecoderConfig
from faar_ray.config.moments.moment import MattersFrom, never
from faar_ray.config.optim_section import OptimConfig
from faar_ray.config.presets import PRESETS, RECIPES
from faar_ray.config.presets.added_keys import ADDED
from faar_ray.config.presets.written_out import preset_beneath
from faar_ray.config.ranks.adalora_section import AdaloraConfig
from faar_ray.config.ranks.by_stage import at_stage
from faar_ray.config.ranks.dylora_section import DyloraConfig
from faar_ray.config.ranks.pdrs_section import PdrsConfig
from faar_ray.config.ranks.spectral_section import SpectralConfig, spectral_fault
from faar_ray.config.registries import load_builder
from faar_ray.config.section import Positive, Section
from faar_ray.config.trial_sections import (
    AdapterConfig,
    BackboneConfig,
    LayerName,
    PlacementConfig,
    RanksConfig,
)

__all__ = [
    "ADDED",
    "CHANGEABLE",
    "PRESETS",
    "AdaloraConfig",
    "AdapterConfig",
    "BackboneConfig",
    "DataConfig",
    "DecoderConfig",
    "DyloraConfig",
    "LayerName",
    "OptimConfig",
    "PdrsConfig",
    "PlacementConfig",
    "Positive",
    "RanksConfig",
    "Section",
    "SinewichConfig",
    "SpectralConfig",
    "SpectrumConfig",
    "TrialConfig",
    "at_stage",
    "config_id",
    "merge_sections",
    "with_dotted",
]

CHANGEABLE = ("optim.lr", "optim.decoder_lr", "optim.backbone_lr", "pdrs.beta", "pdrs.rho_shared", "pdrs.rho_task")
"""Keys that may change while a trial trains: nothing in memory has their shape, and each acts from the next step on."""

Method = Literal[
    "faar",
    "faar_release",
    "lora",
    "dora",
    "pdrs_lora",
    "pdrs_dora",
    "cw_sp",
    "ts_pd",
    "lora_per_task",
    "mtlora",
    "mtlora_plus",
    "tadformer",
    "tadformer_release",
    "free_sinewich",
    "sinewich_without_lcn",
    "sinewich_independent",
    "sinewich_linear",
    "sinewich_without_low_pass",
    "sinewich_1x1",
    "faar_sinewich",
    "ditask",
    "ditask_release",
    "adalora",
    "dylora",
    "full_ft",
    "decoder_only",
    "single_task",
]


RecipeName = Literal["none", "mtlora", "tadformer", "faar"]


class TrialConfig(Section):
    """Everything that one trial depends on; with the seed it is the trial."""

    method: Annotated[Method, MattersFrom(never)] = Field("faar", description="Preset: defaults of the sections below.")
    recipe: Annotated[RecipeName, MattersFrom(never)] = Field(
        "none",
        description="How a paper's code trains (optimizer, schedule, augmentation, drop-outs, image size): defaults of "
        "the sections below, beneath the method's preset; docs/recipes.md lists each value with its source.",
    )
    seed: Annotated[int, Field(ge=0)] = Field(0, description="Seed of inits, order, masks and drop-outs.")
    data: DataConfig = DataConfig()
    backbone: BackboneConfig = BackboneConfig()
    adapter: AdapterConfig = AdapterConfig()
    placement: PlacementConfig = PlacementConfig()
    sinewich: SinewichConfig = SinewichConfig()
    spectrum: SpectrumConfig = SpectrumConfig()
    tad: TadConfig = TadConfig()
    ranks: RanksConfig = RanksConfig()
    pdrs: PdrsConfig = PdrsConfig()
    spectral: SpectralConfig = SpectralConfig()
    adalora: AdaloraConfig = AdaloraConfig()
    dylora: DyloraConfig = DyloraConfig()
    decoder: DecoderConfig = DecoderConfig()
    optim: OptimConfig = OptimConfig()

    @model_validator(mode="before")
    @classmethod
    def _preset_beneath(cls, raw: Any) -> Any:
        if not isinstance(raw, Mapping):
            return raw
        method = raw.get("method", "faar")
        preset = PRESETS.get(method, {}) if isinstance(method, str) else {}
        keys = {name: getattr(of.annotation, "model_fields", {}) for name, of in cls.model_fields.items()}
        return merge_sections(merge_sections(_recipe_beneath(raw), preset_beneath(raw, preset, keys)), raw)

    @model_validator(mode="after")
    def _parts_fit(self) -> Self:
        if not self.adapter.has_ranks and self.ranks.entry.needs_adapters:
            raise ValueError(
                f"ranks.kind: must be fixed where adapter.kind is {self.adapter.kind}, got {self.ranks.kind!r}"
                f"{_because(self.adapter)}"
            )
        if self.method == "single_task" and len(self.data.tasks) != 1:
            raise ValueError(f"data.tasks: must be one task for method single_task, got {list(self.data.tasks)}")
        if self.placement.task_path != "own" and self.placement.task_blocks == "all":
            raise ValueError("placement.task_path: must be own where placement.task_blocks is all: no stream is shared")
        if fault := _consensus_fault(self.decoder, self.data.tasks) or _adapter_fault(self):
            raise ValueError(fault)
        if fault := _warmup_fault(self) or spectral_fault(self) or _policy_fault(self):
            raise ValueError(fault)
        last = self.optim.epochs - self.pdrs.free_epochs
        if self.ranks.kind == "pdrs" and self.pdrs.start_epoch >= last:
            raise ValueError(
                f"pdrs.start_epoch: must be below optim.epochs - pdrs.free_epochs = {last}, or nothing ever shrinks, "
                f"got {self.pdrs.start_epoch}"
            )
        return self

    @classmethod
    def resolve(cls, raw: Mapping[str, Any] | None = None, /, **dotted: Any) -> Self:
        """Build from a nested mapping and dotted overrides (`**{"pdrs.beta": 0.9}`).

        The preset of `raw`'s method lies beneath it, and the recipe beneath that. A method among the overrides (a
        control's, a sample's) brings its preset over `raw`: what is named `decoder_only` has no adapters, whatever the
        base has. A recipe among them stays beneath `raw`.

        Raises:
            pydantic.ValidationError: with every fault.
        """
        method = dotted.get("method")
        preset = PRESETS.get(method, {}) if isinstance(method, str) else {}
        return cls.model_validate(with_dotted(merge_sections(raw or {}, preset), dotted))

    @property
    def has_sine_bases(self) -> bool:
        """Whether some weights of tasks come from a sine-modulated base, and the model has a clock."""
        return self.adapter.entry.task_bases or self.decoder.hidden == "sine"

    @property
    def tokens_in_trunk(self) -> bool:
        """Whether the tasks' tokens take part in the backbone's attention (`sinewich.task_tokens`)."""
        return self.adapter.entry.task_bases and self.sinewich.task_tokens != "outside"

    @property
    def unsettled_epochs(self) -> int:
        """First epochs in which components are masked or still to be dropped; all, where ranks never settle."""
        return self.ranks.entry.unsettled_epochs(self) if self.adapter.adapts else 0

    def without_weights(self) -> Self:
        """The same with a backbone as it is initialised: to count, or to fill from elsewhere."""
        bare = self.backbone.model_copy(update={"pretrained": False, "checkpoint": None})
        return self.model_copy(update={"backbone": bare})

    def with_checkpoint(self, path: str) -> Self:
        """The same with the backbone's weights from another file."""
        return self.model_copy(update={"backbone": self.backbone.model_copy(update={"checkpoint": path})})

    def dotted(self) -> dict[str, Any]:
        """All keys as one flat mapping, `pdrs.beta` -> 0.98."""
        return dict(_flatten(self.model_dump(mode="json")))


def _recipe_beneath(raw: Mapping[str, Any]) -> dict[str, Any]:
    """The defaults of the recipe that `raw` names; its warm-up gives way to steps that `raw` writes."""
    name, optim = raw.get("recipe"), raw.get("optim")
    settings = RECIPES.get(name, {}) if isinstance(name, str) else {}
    values = {key: setting.value for key, setting in settings.items()}
    written = optim if isinstance(optim, Mapping) else {}
    if written.get("warmup_steps") is not None and "warmup_epochs" not in written:
        values.pop("optim.warmup_epochs", None)
    return with_dotted({}, values)


def _warmup_fault(config: TrialConfig) -> str:
    """What is wrong with a warm-up that never ends, and what would be in proportion where it is a recipe's."""
    epochs, warmup = config.optim.epochs, config.optim.warmup_epochs
    if warmup is None or warmup < epochs:
        return ""
    text = f"optim.warmup_epochs: must be below optim.epochs = {epochs}, got {warmup:g}"
    settings = RECIPES.get(config.recipe)
    if settings is None or settings["optim.warmup_epochs"].value != warmup:
        return text
    whole = settings["optim.epochs"].value
    return (
        f"{text} (of recipe {config.recipe}, of {whole} epochs; in proportion it is {warmup * epochs / whole:.3g} here)"
    )


def _policy_fault(config: TrialConfig) -> str:
    """What keeps the rank policy from the other keys, as its entry says."""
    fault = config.ranks.entry.fault
    return "" if fault is None else str(load_builder(fault)(config))


def _consensus_fault(decoder: DecoderConfig, tasks: Sequence[str]) -> str:
    """What keeps XT-Cons from these tasks, if it is on."""
    if decoder.kind != "ts_pd" or not decoder.xt_cons:
        return ""
    if len(tasks) == 1:
        return (
            "decoder.xt_cons: must be false with one task: XT-Cons pulls a task towards the mean spectrum of the other "
            f"tasks, and beside {tasks[0]} there is none"
        )
    if strangers := [task for task in decoder.primary or () if task not in tasks]:
        return f"decoder.primary: must be among data.tasks = {list(tasks)}, got {', '.join(strangers)}"
    return ""


def _adapter_fault(config: TrialConfig) -> str:
    """What keeps an adapter from this placement."""
    placement, adapter = config.placement, config.adapter
    if fault := sinewich_fault(config):
        return fault
    if placement.task_blocks == "all" and not adapter.entry.all_blocks:
        return f"placement.task_blocks: must be last where adapter.kind is {adapter.kind}"
    if placement.task_path == "shared" and not adapter.entry.shared_input:
        return f"placement.task_path: must be own where adapter.kind is {adapter.kind}{_because(adapter)}"
    return tad_fault(config)


def _because(adapter: AdapterConfig) -> str:
    """Why an adapter does not take something, at the end of a message."""
    return f": {adapter.entry.reason}" if adapter.entry.reason else ""


def merge_sections(base: Mapping[str, Any], over: Mapping[str, Any]) -> dict[str, Any]:
    """`over` on top of `base`, section by section; neither is changed."""
    out = dict(base)
    for key, value in over.items():
        below = out.get(key)
        out[key] = merge_sections(below, value) if isinstance(below, Mapping) and isinstance(value, Mapping) else value
    return out


def with_dotted(raw: Mapping[str, Any], dotted: Mapping[str, Any]) -> dict[str, Any]:
    """A copy of `raw` in which every dotted key is set: `{"pdrs.beta": 0.9}` -> `{"pdrs": {"beta": 0.9}}`."""
    out = dict(raw)
    for key, value in dotted.items():
        for part in reversed(key.split(".")):
            value = {part: value}
        out = merge_sections(out, value)
    return out


def config_id(config: TrialConfig) -> str:
    """Name of the config without its seed: trials with the same id differ by seed only."""
    values = {**config.model_dump(mode="json"), "seed": None}
    for key in ADDED:
        *sections, name = key.split(".")
        section = reduce(dict.__getitem__, sections, values)
        if section[name] == _default(key):
            del section[name]
    text = json.dumps({key: value for key, value in values.items() if value != {}}, sort_keys=True)
    return hashlib.sha256(text.encode()).hexdigest()[:8]


def _flatten(tree: Mapping[str, Any], prefix: str = "") -> Iterator[tuple[str, Any]]:
    for key, value in tree.items():
        if isinstance(value, Mapping):
            yield from _flatten(value, f"{prefix}{key}.")
        else:
            yield f"{prefix}{key}", value


def _default(key: str) -> Any:
    """Of a dotted key, without preset and recipe."""
    *sections, name = key.split(".")
    model: Any = TrialConfig
    for section in sections:
        model = model.model_fields[section].annotation
    return model.model_fields[name].default
