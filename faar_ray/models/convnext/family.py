"""timm's ConvNeXt (v1 and v2)."""

from __future__ import annotations

from typing import Any

from timm.models.convnext import ConvNeXt, ConvNeXtBlock, checkpoint_filter_fn
from torch import nn

from faar_ray.config.trial import BackboneConfig
from faar_ray.errors import ConfigError
from faar_ray.models.channels_last import LAYERS, ConvTaskBlock
from faar_ray.models.convnext.convnext import ConvNeXtEnsemble, MultiTaskConvNeXt, StagedConvNeXt
from faar_ray.models.family import BackboneFamily, check_strides
from faar_ray.models.multitask import REDUCTION
from faar_ray.models.timm_weights import build_timm, outline

LARGEST_STRIDE = 32


def _is_convnext(name: str) -> bool:
    return type(outline(name)) is ConvNeXt


def _check(name: str) -> None:
    """Raise ConfigError unless the network is of four stages and of blocks that keep a map's size."""
    network = outline(name)
    check_strides(name, network)
    blocks: list[Any] = [block for stage in network.stages for block in stage.blocks]
    if any(type(block) is not ConvNeXtBlock or type(block.shortcut) is not nn.Identity for block in blocks):
        raise ConfigError(f"backbone.name: {name} cannot be adapted: its blocks must be ConvNeXt's, with a plain skip")


def _build(config: BackboneConfig, size: tuple[int, int]) -> nn.Module:
    return StagedConvNeXt(build_timm(config, size, checkpoint_filter_fn))


def _in_timm(name: str, stage: int, block: int, layer: str) -> str:
    if layer == REDUCTION:
        return f"stages.{stage + 1}.downsample.1"
    return f"stages.{stage}.blocks.{block}.mlp.{layer}"


CONVNEXT = BackboneFamily(
    "a timm ConvNeXt (convnext_*, convnextv2_*)",
    _is_convnext,
    _build,
    MultiTaskConvNeXt,
    ConvTaskBlock,
    linears={layer: layer for layer in LAYERS},
    check=_check,
    sides=lambda name: (LARGEST_STRIDE, "the largest stride"),  # halving drops an odd row: maps would shift
    ensemble=ConvNeXtEnsemble,
    shared_input=True,
    convolutions=True,
    reductions=lambda backbone: [stage.downsample for stage in backbone.layers[1:]],
    peft_module=_in_timm,
)
