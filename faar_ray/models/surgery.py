"""Puts adapters into a backbone: shared ones into every block, task-specific ones into the last block of each stage."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from torch import nn

from faar_ray.adapters import (
    AdaptedLinear,
    Adapter,
    ClockNet,
    SineLinears,
    Site,
    TaskLinears,
    build_adapter,
    build_base,
    build_spectrum_adapter,
    prepared,
)
from faar_ray.config.trial import TrialConfig
from faar_ray.models.ensemble import StreamedLinear
from faar_ray.models.family import BackboneFamily
from faar_ray.models.multitask import REDUCTION
from faar_ray.models.unused import Unused

BASE = "_awb"
"""Suffix of a layer's name in the site of a sine-modulated base."""


def adapt_backbone(backbone: Any, family: BackboneFamily, config: TrialConfig, clock: ClockNet | None = None) -> None:
    """Change the backbone in place; only adapters that reach an output exist.

    In the last stage no shared stream leaves the last block, so a layer that is task-specific there has no shared
    adapter, or one that is only counted (`placement.dead_parameters`). `clock` is what sine-modulated bases need.
    """
    if not config.adapter.adapts:
        return
    adapt_reductions(backbone, family, config)
    if config.placement.task_path == "prompted":
        assert family.adapt_prompted is not None
        return family.adapt_prompted(backbone, family, config)
    if config.adapter.entry.task_bases:
        assert clock is not None
        return adapt_by_sines(backbone, family, config, clock)

    if config.placement.task_blocks == "all":
        return adapt_all_blocks(backbone, family, config)

    shared_input = config.placement.task_path == "shared"
    for s, stage in enumerate(backbone.layers):
        last, continues = last_block(stage, family, config.placement.task_layers), s < len(backbone.layers) - 1
        for b, block in enumerate(stage.blocks):
            task_linears = _task_linears(block, family, config, s, b) if b == last else {}
            # where no shared stream leaves: with a shared input, it is read up to the last task-specific layer
            ends_here = sorted(task_linears, key=list(family.linears).index)[-1:] if shared_input else task_linears
            for layer in layers_of(block, family, config.placement.layers):
                if continues or layer not in ends_here:
                    share(block, layer, family, config, s, b)
                elif config.placement.dead_parameters:
                    adapter = _adapter(linear_of(block, layer, family), Site(s, b, layer, "shared"), config)
                    block.add_module(f"unused_{layer}", Unused(adapter.named_parameters()))
            if config.adapter.entry.spectra and config.spectrum.dead_qkv:
                _hold_dead_qkv(block, family, config, s, b)
            if task_linears:
                stage.blocks[b] = family.task_block(block, task_linears, continues, shared_input=shared_input)


def _hold_dead_qkv(block: nn.Module, family: BackboneFamily, config: TrialConfig, stage: int, index: int) -> None:
    """Tasks' flows on qkv, as DiTASK's released code makes in every block, and whose outputs it throws away."""
    if layers_of(block, family, ["qkv"]) and "qkv" not in config.placement.task_layers:
        for task in config.data.tasks:
            flow = _adapter(linear_of(block, "qkv", family), Site(stage, index, "qkv", task), config)
            block.add_module(f"unused_qkv_{task}", Unused(flow.named_parameters()))


def adapt_reductions(backbone: Any, family: BackboneFamily, config: TrialConfig) -> None:
    """What `placement.reductions` says of the linears between stages; an adapter is of the stage that it ends."""
    if config.placement.reductions == "frozen" or isinstance(family.reductions, str):
        return
    for s, merging in enumerate(family.reductions(backbone)):
        linear: nn.Linear = merging.reduction
        if config.placement.reductions == "trained":
            linear.requires_grad_(True)
        else:
            site = Site(s, len(backbone.layers[s].blocks), REDUCTION, "shared")
            merging.reduction = AdaptedLinear(linear, _adapter(linear, site, config))


def layers_of(block: nn.Module, family: BackboneFamily, layers: Sequence[str]) -> list[str]:
    """The layers of a placement that a block has."""
    names = {name for name, _ in block.named_modules()}
    return [layer for layer in layers if family.linears.get(layer) in names]


def last_block(stage: Any, family: BackboneFamily, layers: Sequence[str]) -> int:
    """The last block of a stage that has any of these layers: the one that is task-specific.

    Some networks end a stage with a block of k x k convolutions alone, which then serves every stream.
    """
    having = [b for b, block in enumerate(stage.blocks) if layers_of(block, family, layers)]
    return having[-1] if having else len(stage.blocks) - 1


def adapt_by_sines(backbone: Any, family: BackboneFamily, config: TrialConfig, clock: ClockNet) -> None:
    """Shared LoRA, and in the last block of each stage one base per linear of `sinewich.layers` (Free Sinewich).

    Where phi is adapted tasks see the shared LoRA of their own linear too, so that every one of them reaches an output.
    """
    sine = config.sinewich
    for s, stage in enumerate(backbone.layers):
        last = last_block(stage, family, sine.layers)
        for b, block in enumerate(stage.blocks):
            for layer in layers_of(block, family, config.placement.layers):
                if b != last or layer not in sine.layers or sine.phi_is_adapted(layer):
                    share(block, layer, family, config, s, b)
        bases = {
            layer: _sine_linears(stage.blocks[last], layer, family, config, clock, s, last)
            for layer in layers_of(stage.blocks[last], family, sine.layers)
        }
        stage.blocks[last] = family.task_block(stage.blocks[last], bases, s < len(backbone.layers) - 1)


def _sine_linears(
    block: nn.Module,
    layer: str,
    family: BackboneFamily,
    config: TrialConfig,
    clock: ClockNet,
    stage: int,
    index: int,
) -> SineLinears:
    weight_OI = linear_of(block, layer, family).weight
    sites = [Site(stage, index, layer + BASE, whose) for whose in base_owners(config)]
    bases = {
        site.task: build_base(weight_OI, site, config.sinewich, base_rank(config, site), config.seed) for site in sites
    }
    phi: Any = block.get_submodule(family.linears[layer])
    return SineLinears(phi, bases, clock, config.sinewich, Site(stage, index, layer + BASE, "shared"))


def base_owners(config: TrialConfig) -> tuple[str, ...]:
    """Keys of the bases: `shared`, or each task."""
    return ("shared",) if config.sinewich.base == "shared" else config.data.tasks


def base_rank(config: TrialConfig, site: Site) -> int:
    """Initial rank of a base in the config."""
    usual = config.sinewich.rank or config.ranks.initial(shared=True, stage=site.stage)
    return (config.ranks.pattern or {}).get(site.place, usual)


def adapt_all_blocks(backbone: Any, family: BackboneFamily, config: TrialConfig) -> None:
    """Task-specific adapters in every block; a layer that is not task-specific keeps one for all streams."""
    for s, stage in enumerate(backbone.layers):
        for b, block in enumerate(stage.blocks):
            task_linears = _task_linears(block, family, config, s, b)
            for layer in layers_of(block, family, config.placement.layers):
                if layer not in task_linears:
                    share(block, layer, family, config, s, b)
            for layer, linears in task_linears.items():
                block.set_submodule(family.linears[layer], StreamedLinear(linears))


def _task_linears(
    block: nn.Module, family: BackboneFamily, config: TrialConfig, stage: int, index: int
) -> dict[str, TaskLinears]:
    layers = layers_of(block, family, config.placement.task_layers)
    linears = {layer: linear_of(block, layer, family) for layer in layers}
    return {
        layer: TaskLinears(
            linear,
            {task: _adapter(linear, Site(stage, index, layer, task), config) for task in config.data.tasks},
            whole_change=config.placement.task_change == "whole",
            task_dropout=config.adapter.task_dropout,
        )
        for layer, linear in linears.items()
    }


def share(block: nn.Module, layer: str, family: BackboneFamily, config: TrialConfig, stage: int, index: int) -> None:
    """Put a shared adapter around a layer of a block."""
    linear = linear_of(block, layer, family)
    adapter = _adapter(linear, Site(stage, index, layer, "shared"), config)
    block.set_submodule(family.linears[layer], AdaptedLinear(linear, adapter))


def _adapter(linear: nn.Linear, site: Site, config: TrialConfig) -> Adapter:
    if config.adapter.entry.spectra:
        return build_spectrum_adapter(linear, site, config.adapter, config.spectrum, config.seed)
    rank = config.ranks.initial(shared=site.shared, stage=site.stage, place=site.place)
    return prepared(build_adapter(linear.weight, site, config.adapter, rank, config.seed), config)


def linear_of(block: nn.Module, layer: str, family: BackboneFamily) -> nn.Linear:
    """The frozen linear of a layer of a block, with or without an adapter around it."""
    module = block.get_submodule(family.linears[layer])
    linear = module.base if isinstance(module, AdaptedLinear) else module
    assert isinstance(linear, nn.Linear)
    return linear
