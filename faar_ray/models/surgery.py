"""Puts adapters into a backbone: shared ones into every block, task-specific ones into the last block of each stage."""

from __future__ import annotations

from timm.models.swin_transformer import SwinTransformer, SwinTransformerBlock
from torch import nn

from faar_ray.adapters import AdaptedLinear, LowRankFactors, Site, TaskLinears, build_adapter
from faar_ray.config import TrialConfig, at_stage
from faar_ray.errors import ConfigError
from faar_ray.models.ensemble import StreamedLinear
from faar_ray.models.task_block import ORDER, TaskBlock
from faar_ray.models.vit_block import ViTBlock, ViTTaskBlock

PARENT = {"qkv": "attn", "proj": "attn", "fc1": "mlp", "fc2": "mlp"}


def adapt_backbone(backbone: SwinTransformer, config: TrialConfig) -> None:
    """Change the backbone in place; only adapters that reach an output exist.

    In the last stage no shared stream leaves the last block, so a layer that is task-specific there has no shared
    adapter.
    """
    if config.adapter.kind == "none":
        return
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


def _adapter(block: SwinTransformerBlock, site: Site, config: TrialConfig) -> LowRankFactors:
    weight_OI = linear_of(block, site.layer).weight
    return build_adapter(weight_OI, site, config.adapter, at_stage(config.pdrs.init_rank, site.stage), config.seed)


def task_block(
    block: SwinTransformerBlock | ViTBlock, own: dict[str, TaskLinears], continues: bool, *, common: bool
) -> TaskBlock | ViTTaskBlock:
    """The block with task-specific linears beside its own.

    Raises:
        ConfigError: a common task path in a ViT.
    """
    if not isinstance(block, ViTBlock):
        return TaskBlock(block, own, continues, common=common)
    if common:
        raise ConfigError("placement.task_path: must be own on a ViT, got 'shared'")
    return ViTTaskBlock(block, own, continues)


def linear_of(block: SwinTransformerBlock, layer: str) -> nn.Linear:
    """The frozen linear `qkv`, `proj`, `fc1` or `fc2` of a Swin block, with or without an adapter around it."""
    module = getattr(getattr(block, PARENT[layer]), layer)
    linear = module.base if isinstance(module, AdaptedLinear) else module
    assert isinstance(linear, nn.Linear)
    return linear
