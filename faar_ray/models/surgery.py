"""Puts adapters into a backbone: shared ones into every block, task-specific ones into the last block of each stage."""

from __future__ import annotations

from collections.abc import Mapping

from timm.models.swin_transformer import SwinTransformer, SwinTransformerBlock
from torch import nn

from faar_ray.adapters import (
    AdaptedLinear,
    ClockNet,
    LoRA,
    SineLinears,
    Site,
    TaskLinears,
    build_adapter,
    build_base,
)
from faar_ray.config.trial import TrialConfig
from faar_ray.errors import ConfigError
from faar_ray.models.ensemble import StreamedLinear
from faar_ray.models.swin.task_block import ORDER, TaskBlock
from faar_ray.models.vit.vit_block import ViTBlock, ViTTaskBlock

BASE = "_awb"
"""After a layer's name: a base beside that layer's own adapter."""
TaskSpecific = TaskLinears | SineLinears
PARENT = {"qkv": "attn", "proj": "attn", "fc1": "mlp", "fc2": "mlp"}


def adapt_backbone(backbone: SwinTransformer, config: TrialConfig, clock: ClockNet | None = None) -> None:
    """Change the backbone in place; only adapters that reach an output exist.

    In the last stage no shared stream leaves the last block, so a layer that is task-specific there has no shared
    adapter. `clock` is what `adapter.kind: sine_awb` needs.
    """
    if config.adapter.kind == "none":
        return
    if config.adapter.kind == "sine_awb":
        assert clock is not None
        return adapt_by_sines(backbone, config, clock)
    task_layers = config.placement.task_layers
    if config.placement.task_blocks == "all":
        return adapt_all_blocks(backbone, config)
    common = config.placement.task_path == "shared"
    # of the last stage's last block: with a common path the shared stream is read up to the last task-specific layer
    ends_here = sorted(task_layers, key=ORDER.index)[-1:] if common else task_layers
    for s, stage in enumerate(backbone.layers):
        for b, block in enumerate(stage.blocks):
            last_block, continues = b == len(stage.blocks) - 1, s < len(backbone.layers) - 1
            own = _task_linears(block, config, s, b) if last_block else {}
            for layer in config.placement.layers:
                if continues or not last_block or layer not in ends_here:
                    _share(block, layer, config, s, b)
            if own:
                stage.blocks[b] = task_block(block, own, continues, common=common)


def adapt_by_sines(backbone: SwinTransformer, config: TrialConfig, clock: ClockNet) -> None:
    """Shared LoRA, and in the last block of each stage one base per linear of `sinewich.layers` (Free Sinewich).

    With `phi: adapted` tasks see the shared LoRA of their own linear too, so that every one of them reaches an output.
    """
    sine = config.sinewich
    for s, stage in enumerate(backbone.layers):
        last = len(stage.blocks) - 1
        for b, block in enumerate(stage.blocks):
            for layer in config.placement.layers:
                if b < last or sine.phi == "adapted" or layer not in sine.layers:
                    _share(block, layer, config, s, b)
        own: dict[str, TaskSpecific] = {
            layer: _sine_linears(stage.blocks[last], layer, config, clock, s, last) for layer in sine.layers
        }
        stage.blocks[last] = task_block(stage.blocks[last], own, s < len(backbone.layers) - 1, common=False)


def _sine_linears(
    block: SwinTransformerBlock, layer: str, config: TrialConfig, clock: ClockNet, stage: int, index: int
) -> SineLinears:
    weight_OI = linear_of(block, layer).weight
    wanted = base_rank(config, stage)
    sites = [Site(stage, index, layer + BASE, whose) for whose in base_owners(config)]
    bases = {site.task: build_base(weight_OI, site, config.sinewich.conv_size, wanted, config.seed) for site in sites}
    phi = getattr(getattr(block, PARENT[layer]), layer)
    return SineLinears(phi, bases, clock, config.sinewich, Site(stage, index, layer + BASE, "shared"))


def base_owners(config: TrialConfig) -> tuple[str, ...]:
    """Whom bases belong to: `shared`, or each task."""
    return ("shared",) if config.sinewich.base == "shared" else config.data.tasks


def base_rank(config: TrialConfig, stage: int) -> int:
    """Rank of a base as the config asks for it."""
    return config.sinewich.rank or config.ranks.initial(shared=True, stage=stage)


def adapt_all_blocks(backbone: SwinTransformer, config: TrialConfig) -> None:
    """Task-specific adapters in every block; a layer that is not task-specific keeps one for all streams."""
    for s, stage in enumerate(backbone.layers):
        for b, block in enumerate(stage.blocks):
            own = _task_linears(block, config, s, b)
            for layer in config.placement.layers:
                if layer not in own:
                    _share(block, layer, config, s, b)
            for name, linears in own.items():
                setattr(getattr(block, PARENT[name]), name, StreamedLinear(linears))


def _task_linears(block: SwinTransformerBlock, config: TrialConfig, stage: int, index: int) -> dict[str, TaskLinears]:
    return {
        layer: TaskLinears(
            linear_of(block, layer),
            {task: _adapter(block, Site(stage, index, layer, task), config) for task in config.data.tasks},
        )
        for layer in config.placement.task_layers
    }


def _share(block: SwinTransformerBlock, layer: str, config: TrialConfig, stage: int, index: int) -> None:
    adapter = _adapter(block, Site(stage, index, layer, "shared"), config)
    setattr(getattr(block, PARENT[layer]), layer, AdaptedLinear(linear_of(block, layer), adapter))


def _adapter(block: SwinTransformerBlock, site: Site, config: TrialConfig) -> LoRA:
    weight_OI = linear_of(block, site.layer).weight
    rank = config.ranks.initial(shared=site.shared, stage=site.stage)
    return build_adapter(weight_OI, site, config.adapter, rank, config.seed)


def task_block(
    block: SwinTransformerBlock | ViTBlock, own: Mapping[str, TaskSpecific], continues: bool, *, common: bool
) -> TaskBlock | ViTTaskBlock:
    """The block with task-specific linears beside its own.

    Raises:
        ConfigError: a common task path, or kernels over a grid, in a ViT.
    """
    if not isinstance(block, ViTBlock):
        return TaskBlock(block, own, continues, common=common)
    if common:
        raise ConfigError("placement.task_path: must be own on a ViT, got 'shared'")
    if any(isinstance(linears, SineLinears) and linears.needs_grid for linears in own.values()):
        raise ConfigError("sinewich.conv_size: must be 1 on a ViT, whose class token lies in no grid, got 3")
    return ViTTaskBlock(block, own, continues)


def linear_of(block: SwinTransformerBlock, layer: str) -> nn.Linear:
    """The frozen linear `qkv`, `proj`, `fc1` or `fc2` of a Swin block, with or without an adapter around it."""
    module = getattr(getattr(block, PARENT[layer]), layer)
    linear = module.base if isinstance(module, AdaptedLinear) else module
    assert isinstance(linear, nn.Linear)
    return linear
