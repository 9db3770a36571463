"""From the names of other programs' weights to timm's: torchvision, efficientnet_pytorch, DINOv2 and transformers.

timm's own filters, which run after this, know the files of Microsoft's Swin and Meta's ConvNeXt, and most of DINOv2's.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

import torch
from timm.layers import Conv2dSame
from torch import Tensor

from faar_ray.config.trial import BackboneConfig
from faar_ray.errors import ConfigError, DataError
from faar_ray.models.image_statistics import IMAGENET, statistics_of
from faar_ray.models.weight_order import by_order

State = dict[str, Tensor]
Rename = Mapping[str, str]
"""Regular expression -> what takes its place; in this order."""


@dataclass(frozen=True, slots=True)
class WeightFormat:
    """How one program names its weights, and what these expect of timm's model."""

    program: str
    mark: str
    """A name that only its files have."""
    target: str
    """A name that timm's models of that architecture have."""
    convert: Callable[[State, Any], State]
    """(weights, timm's model) -> the weights by timm's names."""
    imagenet: bool = False
    """Whether they were trained on images in ImageNet's mean and deviation, whatever timm says of its own."""
    same_padding: bool | None = None
    """Whether convolutions pad as TensorFlow does, which timm's models `tf_*` do; None: there is nothing to pad."""


def timm_names(weights: State, model: Any, source: str = "weights") -> State:
    """The weights by the names that a timm model has; unchanged where they are of none of the known formats.

    Args:
        weights: by the names of their file.
        model: timm's, whose architecture they should have.
        source: as messages name it.

    Raises:
        DataError: timm's model of this name pads otherwise, so that all would fit and nothing be right.
    """
    known = format_of(weights, model)
    if known is None:
        return weights
    same = any(isinstance(module, Conv2dSame) for module in model.modules())
    if known.same_padding is not None and known.same_padding != same:
        says = "as TensorFlow does (timm's tf_*)" if known.same_padding else "on both sides (timm's without tf_)"
        raise DataError(f"{source}: weights of {known.program} are for convolutions that pad {says}")
    return known.convert(weights, model)


def check_statistics(weights: State, model: Any, config: BackboneConfig) -> None:
    """Refuse weights that were trained on images in another mean and deviation than the backbone would see.

    Raises:
        ConfigError: `backbone.statistics` says nothing of them.
    """
    known = format_of(weights, model)
    if known and known.imagenet and config.statistics == "auto" and statistics_of(config) != IMAGENET:
        raise ConfigError(
            f"backbone.statistics: must be imagenet for weights of {known.program}; auto means those of timm's own "
            f"weights of {config.name}, which were trained in others"
        )


def format_of(weights: State, model: Any) -> WeightFormat | None:
    """Of which program the weights of the model's architecture are; None for timm's own, and what is not known."""
    keys = model.state_dict().keys()
    return next((known for known in FORMATS if known.mark in weights and known.target in keys), None)


def renamed(weights: State, rename: Rename) -> State:
    """The weights with every expression applied to every name."""
    return {_renamed(name, rename): value for name, value in weights.items()}


def _renamed(name: str, rename: Rename) -> str:
    for pattern, replacement in rename.items():
        name = re.sub(pattern, replacement, name)
    return name


EFFICIENTNET_PYTORCH: Rename = {
    r"^_conv_stem\.": "features.0.0.",
    r"^_bn0\.": "features.0.1.",
    r"^_blocks\.(\d+)\._expand_conv\.": r"features.1.\1.0.0.",
    r"^_blocks\.(\d+)\._bn0\.": r"features.1.\1.0.1.",
    r"^_blocks\.(\d+)\._depthwise_conv\.": r"features.1.\1.1.0.",
    r"^_blocks\.(\d+)\._bn1\.": r"features.1.\1.1.1.",
    r"^_blocks\.(\d+)\._se_reduce\.": r"features.1.\1.2.fc1.",
    r"^_blocks\.(\d+)\._se_expand\.": r"features.1.\1.2.fc2.",
    r"^_blocks\.(\d+)\._project_conv\.": r"features.1.\1.3.0.",
    r"^_blocks\.(\d+)\._bn2\.": r"features.1.\1.3.1.",
    r"^_conv_head\.": "features.2.0.",
    r"^_bn1\.": "features.2.1.",
    r"^_fc\.": "classifier.",
}
"""To names as torchvision's, whose numbers tell the order."""
TORCHVISION_SWIN: Rename = {
    r"^features\.0\.0\.": "patch_embed.proj.",
    r"^features\.0\.2\.": "patch_embed.norm.",
    **{rf"^features\.{2 * stage + 1}\.": f"layers.{stage}.blocks." for stage in range(4)},
    **{rf"^features\.{2 * stage}\.": f"layers.{stage}.downsample." for stage in (1, 2, 3)},
    r"\.mlp\.0\.": ".mlp.fc1.",
    r"\.mlp\.3\.": ".mlp.fc2.",
}
TORCHVISION_CONVNEXT: Rename = {
    r"^features\.0\.": "stem.",
    **{rf"^features\.{2 * stage + 1}\.": f"stages.{stage}.blocks." for stage in range(4)},
    **{rf"^features\.{2 * stage}\.": f"stages.{stage}.downsample." for stage in (1, 2, 3)},
    r"\.block\.0\.": ".conv_dw.",
    r"\.block\.2\.": ".norm.",
    r"\.block\.3\.": ".mlp.fc1.",
    r"\.block\.5\.": ".mlp.fc2.",
    r"\.layer_scale$": ".gamma",
    r"^classifier\.0\.": "head.norm.",
    r"^classifier\.2\.": "head.fc.",
}
TORCHVISION_VIT: Rename = {
    r"^class_token$": "cls_token",
    r"^conv_proj\.": "patch_embed.proj.",
    r"^encoder\.pos_embedding$": "pos_embed",
    r"^encoder\.layers\.encoder_layer_(\d+)\.": r"blocks.\1.",
    r"^encoder\.ln\.": "norm.",
    r"^heads\.": "head.",
    r"\.ln_([12])\.": r".norm\1.",
    r"\.self_attention\.in_proj_": ".attn.qkv.",
    r"\.self_attention\.out_proj\.": ".attn.proj.",
    r"\.mlp\.(?:0|linear_1)\.": ".mlp.fc1.",
    r"\.mlp\.(?:3|linear_2)\.": ".mlp.fc2.",
}
TRANSFORMERS_DINOV2: Rename = {
    r"^embeddings\.patch_embeddings\.projection\.": "patch_embed.proj.",
    r"^embeddings\.position_embeddings$": "pos_embed",
    r"^embeddings\.(cls_token|mask_token|register_tokens)$": r"\1",
    r"^encoder\.layer\.": "blocks.",
    r"\.attention\.output\.dense\.": ".attn.proj.",
    r"\.attention\.attention\.(query|key|value)\.": r".attn.\1.",
    r"\.layer_scale([12])\.lambda1$": r".ls\1.gamma",
    r"\.mlp\.weights_in\.": ".mlp.w12.",
    r"\.mlp\.weights_out\.": ".mlp.w3.",
    r"^layernorm\.": "norm.",
}
EXPORTED_POSITIONS = ("embeddings.Concat_6.0", "embeddings.Reshape_1.0")
"""Class position and patch positions, which torch's ONNX exporter parted (see `weight_onnx`)."""


def _from_torchvision_swin(weights: State, model: Any) -> State:
    return renamed(weights, TORCHVISION_SWIN)


def _from_torchvision_convnext(weights: State, model: Any) -> State:
    new = renamed(weights, TORCHVISION_CONVNEXT)
    return {name: value.flatten() if name.endswith(".gamma") else value for name, value in new.items()}


def _from_torchvision_vit(weights: State, model: Any) -> State:
    return renamed(weights, TORCHVISION_VIT)


def _from_torchvision_convnet(weights: State, model: Any) -> State:
    architecture = str(model.default_cfg.get("architecture", ""))
    wide = re.match(r"mobilenetv3|efficientnetv2|efficientnet_b[567]", architecture)
    return by_order(weights, model, eps=1e-3 if wide else 1e-5)  # as torchvision.models builds them


def _from_efficientnet_pytorch(weights: State, model: Any) -> State:
    return by_order(renamed(weights, EFFICIENTNET_PYTORCH), model, eps=1e-3)


def _from_chunks(weights: State, model: Any) -> State:
    """DINOv2's blocks in chunks for FSDP: `blocks.CHUNK.BLOCK.`, blocks counted through."""
    return renamed(weights, {r"^blocks\.\d+\.(\d+)\.": r"blocks.\1."})


def _from_deit3(weights: State, model: Any) -> State:
    return renamed(weights, {r"\.gamma_([12])$": r".ls\1.gamma"})


def _from_transformers_dinov2(weights: State, model: Any) -> State:
    """Query, key and value in one; positions in one where an ONNX file has parted them. Decoders are left out."""
    new = renamed(weights, TRANSFORMERS_DINOV2)
    for name in [name for name in new if ".attn.query." in name]:
        parts = [new.pop(name.replace(".query.", f".{part}."), None) for part in ("query", "key", "value")]
        new[name.replace(".query.", ".qkv.")] = torch.cat([part for part in parts if part is not None])
    if set(EXPORTED_POSITIONS) <= new.keys():
        new["pos_embed"] = torch.cat([new.pop(name) for name in EXPORTED_POSITIONS], dim=1)
    return new


_SWIN, _VIT, _CONVNEXT, _CONVNET = "layers.0.blocks.0.attn.qkv.weight", "cls_token", "stem.0.weight", "conv_stem.weight"
FORMATS = (
    WeightFormat("torchvision", "features.1.0.attn.qkv.weight", _SWIN, _from_torchvision_swin, imagenet=True),
    WeightFormat("torchvision", "features.1.0.layer_scale", _CONVNEXT, _from_torchvision_convnext, imagenet=True),
    WeightFormat("torchvision", "conv_proj.weight", _VIT, _from_torchvision_vit, imagenet=True),
    WeightFormat("torchvision", "features.0.0.weight", _CONVNET, _from_torchvision_convnet, True, same_padding=False),
    WeightFormat("efficientnet_pytorch", "_conv_stem.weight", _CONVNET, _from_efficientnet_pytorch, same_padding=True),
    WeightFormat("DINOv2", "blocks.0.0.norm1.weight", _VIT, _from_chunks, imagenet=True),
    WeightFormat("DeiT III", "blocks.0.gamma_1", _VIT, _from_deit3, imagenet=True),
    WeightFormat(
        *("transformers", "embeddings.patch_embeddings.projection.weight", _VIT), _from_transformers_dinov2, True
    ),
)
"""The first whose mark is among the weights."""
