"""What a backbone family is: how its names are recognised, how one is built and adapted, and what it can take."""

from __future__ import annotations

from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from torch import nn

from faar_ray.config.trial import BackboneConfig, TrialConfig
from faar_ray.errors import ConfigError
from faar_ray.models.multitask import MultiTaskModel, is_norm

STRIDES = {"merged": (8, 16, 32, 32), "stages": (4, 8, 16, 32)}
"""Of the four maps that decoders see, by `backbone.pyramid`."""


def is_light(name: str) -> bool:
    """What `backbone.trainable: light` trains: patch embedding, norms and position tables (MTLoRA's recipe)."""
    return is_norm(name) or "patch_embed" in name or name.endswith(("relative_position_bias_table", "pos_embed"))


def swin_pyramid(widths: Sequence[int], pyramid: str) -> list[int]:
    """Channels of the four maps of a backbone whose stages have these widths."""
    return [*widths[1:], widths[-1]] if pyramid == "merged" else list(widths)


def stage_widths(backbone: Any) -> list[int]:
    """Channels of each stage, as timm's models tell them."""
    return [int(level["num_chs"]) for level in backbone.feature_info]


@dataclass(frozen=True, slots=True)
class BackboneFamily:
    """One entry of `BACKBONES`."""

    wanted: str
    """As messages name it: `a timm Swin (swin_*)`."""
    recognises: Callable[[str], bool]
    """Whether `backbone.name` is one of the family."""
    build: Callable[[BackboneConfig, tuple[int, int]], nn.Module]
    """(config, image size) -> a module with `layers`, each a stage with `blocks`; its weights loaded."""
    model: type[MultiTaskModel]
    """Computes the maps: `levels`."""
    task_block: Callable[..., nn.Module]
    """(block, task linears, continues, shared_input=...) -> the last block of a stage, with a stream for each task."""
    linears: Mapping[str, str]
    """Layer of `placement` -> where it is in a block: `{"qkv": "attn.qkv"}`; a block passes over those it lacks."""
    widths: Callable[[Any], Sequence[int]] = stage_widths
    """Channels of the four stages of a backbone."""
    embed_dim: Callable[[Sequence[int]], int] = lambda widths: widths[0]
    """From the stages' widths, what `decoder.width` is in proportion to by default."""
    strides: Mapping[str, tuple[int, ...]] = field(default_factory=lambda: STRIDES)
    """Of the four maps, for each `backbone.pyramid` that it takes."""
    stage_layers: Callable[[str], Sequence[Collection[str]]] | None = None
    """From a name, the layers that each of the four stages has; None: every stage has all of `linears`."""
    channels: Callable[[Sequence[int], str], list[int]] = swin_pyramid
    """(widths, pyramid) -> channels of the four maps."""
    check: Callable[[str], None] = lambda name: None
    """Raises ConfigError for a name of the family that cannot be adapted."""
    sides: Callable[[str], tuple[int, str]] = lambda name: (1, "a pixel")
    """From a name, what both sides of an image must be multiples of, and what of the backbone that is."""
    is_light: Callable[[str], bool] = is_light
    """Whether a parameter of this name trains under `backbone.trainable: light`."""
    ensemble: type[MultiTaskModel] | None = None
    """The model for `placement.task_blocks: all`, if it can."""
    prompted: type[MultiTaskModel] | None = None
    """The model for `placement.task_path: prompted`, if it can; `adapt_prompted` puts its adapters in."""
    adapt_prompted: Callable[..., None] | None = None
    """(backbone, family, config); changes the backbone."""
    shared_input: bool = False
    """Takes `placement.task_path: shared`."""
    convolutions: bool = False
    """Takes `sinewich.conv_size: 3`."""
    merges: bool = True
    """Its adapters can be folded into plain weights."""
    reductions: Callable[[Any], Sequence[Any]] | str = "whose stages no linear joins"
    """Of a backbone, what merges tokens after each stage but the last, by a linear `reduction`; or why nothing does."""
    peft_module: Callable[[str, int, int, str], str] | None = None
    """(name, stage, block, layer) -> where timm's own model has the linear or convolution; None: no rank pattern."""


def check_strides(name: str, network: Any) -> None:
    """Refuse a timm network whose last four maps are not at strides 4, 8, 16, 32.

    Raises:
        ConfigError: naming its strides.
    """
    wanted = STRIDES["stages"]
    strides = tuple(int(level["reduction"]) for level in network.feature_info)[-len(wanted) :]
    if strides != wanted:
        raise ConfigError(
            f"backbone.name: {name} cannot be adapted: its maps must be at strides {wanted}, not {strides}"
        )


def check_placement(family: BackboneFamily, config: TrialConfig) -> None:
    """Refuse what a family cannot take.

    Raises:
        ConfigError: naming the key.
    """
    name, placement, pyramid = config.backbone.name, config.placement, config.backbone.pyramid
    if pyramid not in family.strides:
        known = " or ".join(f"{key} (strides {', '.join(map(str, of))})" for key, of in family.strides.items())
        raise ConfigError(f"backbone.pyramid: must be {known} on {name}, got {pyramid!r}")
    family.check(name)
    check_sides(name, config.data.size, *family.sides(name))
    if not config.adapter.adapts:
        return
    check_layers(family, config)
    if placement.task_blocks == "all" and family.ensemble is None:
        raise ConfigError(f"placement.task_blocks: must be last on {name}, got 'all'")
    if placement.task_path == "shared" and not family.shared_input:
        raise ConfigError(f"placement.task_path: must be own on {name}, got 'shared'")
    if placement.task_path == "prompted" and family.prompted is None:
        known = "own or shared" if family.shared_input else "own"
        raise ConfigError(
            f"placement.task_path: must be {known} on {name}: prompts of tasks attend in the windows of a Swin, which "
            "it has not, got 'prompted'"
        )
    if placement.reductions != "frozen" and isinstance(family.reductions, str):
        raise ConfigError(
            f"placement.reductions: must be frozen on {name}, {family.reductions}, got {placement.reductions!r}"
        )
    if config.adapter.entry.task_bases and config.sinewich.conv_size > 1 and not family.convolutions:
        raise ConfigError(f"sinewich.conv_size: must be 1 on {name}, whose tokens lie in no grid, got 3")


def check_sides(name: str, size: tuple[int, int], unit: int, what: str) -> None:
    """Refuse an image whose sides `unit`, which is `what` of a backbone, does not divide.

    Raises:
        ConfigError: naming the nearest sizes that it does.
    """
    if odd := next((side for side in size if side % unit), None):
        near = sorted({max(unit, odd // unit * unit), -(-odd // unit) * unit})
        raise ConfigError(
            f"data.image_size: must be a multiple of {unit}, {what} of {name}, got {odd} "
            f"(near: {' or '.join(map(str, near))})"
        )


def check_layers(family: BackboneFamily, config: TrialConfig) -> None:
    """Refuse layers that would leave a stage without task adapters, or the whole network without shared ones.

    Raises:
        ConfigError: naming the key, and the layers that there are.
    """
    name, placement, stage_layers = config.backbone.name, config.placement, family.stage_layers
    stages = [family.linears] if stage_layers is None else stage_layers(name)
    key, layers = "placement.task_layers", placement.task_layers
    if config.adapter.entry.task_bases:
        key, layers = "sinewich.layers", config.sinewich.layers

    everywhere = [layer for layer in family.linears if any(layer in stage for stage in stages)]
    if not set(placement.layers) & set(everywhere):
        raise ConfigError(_no_layers("placement.layers", everywhere, name, placement.layers))
    for number, stage in enumerate(stages):
        if layers and not set(layers) & set(stage):
            where = name if stage_layers is None else f"stage {number} of {name}"
            raise ConfigError(_no_layers(key, [layer for layer in family.linears if layer in stage], where, layers))


def _no_layers(key: str, there_are: Sequence[str], where: str, got: Sequence[str]) -> str:
    return f"{key}: must hold {' or '.join(there_are)}, the layers of {where}, got {', '.join(got)}"
