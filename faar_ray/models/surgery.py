"""Puts adapters into a Swin: shared ones into every block, task-specific ones into the last block of each stage."""

from __future__ import annotations

from timm.models.swin_transformer import SwinTransformer, SwinTransformerBlock
from torch import nn

from faar_ray.adapters import AdaptedLinear, LowRankFactors, Site, TaskLinears, build_adapter
from faar_ray.config import TrialConfig
from faar_ray.models.task_block import TaskBlock

PARENT = {"qkv": "attn", "proj": "attn", "fc1": "mlp", "fc2": "mlp"}


def adapt_backbone(backbone: SwinTransformer, config: TrialConfig) -> None:
    """Change the backbone in place; only adapters that reach an output exist.

    In the last stage no shared stream leaves the last block, so a layer that is task-specific there has no shared
    adapter.
    """
    if config.adapter.kind == "none":
        return
    task_layers = config.placement.task_layers
    for s, stage in enumerate(backbone.layers):
        for b, block in enumerate(stage.blocks):
            last_block, continues = b == len(stage.blocks) - 1, s < len(backbone.layers) - 1
            own = _task_linears(block, config, s, b) if last_block else {}
            for layer in config.placement.layers:
                if continues or not last_block or layer not in task_layers:
                    _share(block, layer, config, s, b)
            if own:
                stage.blocks[b] = TaskBlock(block, own, continues)


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
    return build_adapter(weight_OI, site, config.adapter, config.pdrs.init_rank, config.seed)


def linear_of(block: SwinTransformerBlock, layer: str) -> nn.Linear:
    """The frozen linear `qkv`, `proj`, `fc1` or `fc2` of a Swin block, with or without an adapter around it."""
    module = getattr(getattr(block, PARENT[layer]), layer)
    linear = module.base if isinstance(module, AdaptedLinear) else module
    assert isinstance(linear, nn.Linear)
    return linear
