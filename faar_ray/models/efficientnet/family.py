"""timm's classes EfficientNet and MobileNetV3: EfficientNet (v1, v2, Lite, EdgeTPU), MobileNet (v1 to v4), MnasNet."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from statistics import median
from typing import Any

from timm.models.efficientnet import EfficientNet
from timm.models.mobilenetv3 import MobileNetV3
from torch import Tensor, nn

from faar_ray.config.trial import BackboneConfig
from faar_ray.errors import ConfigError
from faar_ray.models.channels_last import LAYERS, ConvTaskBlock
from faar_ray.models.efficientnet.conv_block import PARTS, path_of, pointwise
from faar_ray.models.efficientnet.convnet import (
    ConvNetEnsemble,
    MultiTaskConvNet,
    StagedConvNet,
    stages_of,
)
from faar_ray.models.family import STRIDES, BackboneFamily, check_strides
from faar_ray.models.timm_weights import build_timm, outline


def _is_convnet(name: str) -> bool:
    return type(outline(name)) in (EfficientNet, MobileNetV3)


def _check(name: str) -> None:
    """Raise ConfigError unless the network is one of four stages, made of blocks that are known."""
    network = outline(name)
    check_strides(name, network)
    blocks = [block for stage in stages_of(network) for block in stage]
    if odd := next((block for block in blocks if type(block) not in PARTS), None):
        known = ", ".join(block.__name__ for block in PARTS)
        raise ConfigError(
            f"backbone.name: {name} cannot be adapted: its blocks must be of {known}, not {type(odd).__name__}"
        )


def _stage_layers(name: str) -> list[set[str]]:
    return [
        {layer for layer in LAYERS for block in stage if pointwise(block, layer)} for stage in stages_of(outline(name))
    ]


def _peft_module(name: str, stage: int, block: int, layer: str) -> str:
    network = outline(name)
    found = stages_of(network)[stage][block]
    path = next(path for path, module in network.named_modules() if module is found)
    return f"{path}.{path_of(found, layer)}"


def _as_they_are(weights: Mapping[str, Tensor], model: Any) -> dict[str, Tensor]:
    return dict(weights)


def _build(config: BackboneConfig, size: tuple[int, int]) -> nn.Module:
    return StagedConvNet(build_timm(config, size, _as_they_are))


def _embed_dim(widths: Sequence[int]) -> int:
    """What a Swin of such widths starts at: d, 2 d, 4 d, 8 d; here widths grow otherwise, and the median counts."""
    middle: float = median(width / 2**stage for stage, width in enumerate(widths))
    return round(middle)


EFFICIENTNET = BackboneFamily(
    "a timm EfficientNet or MobileNet (efficientnet_*, tf_efficientnet_lite*, mobilenetv3_*, ...)",
    _is_convnet,
    _build,
    MultiTaskConvNet,
    ConvTaskBlock,
    linears={layer: layer for layer in LAYERS},
    embed_dim=_embed_dim,
    strides={"stages": STRIDES["stages"]},
    channels=lambda widths, pyramid: list(widths),
    check=_check,
    ensemble=ConvNetEnsemble,
    shared_input=True,
    convolutions=True,
    stage_layers=_stage_layers,
    reductions="whose maps are halved by depthwise or k x k convolutions inside blocks",
    peft_module=_peft_module,
)
