"""Backbones: any timm Swin (v1) or plain ViT, and the package's own `swin_micro`."""

from __future__ import annotations

from collections.abc import Mapping
from difflib import get_close_matches
from pathlib import Path
from typing import Any

import timm
import torch
from safetensors import SafetensorError
from safetensors.torch import load_file
from timm.layers import Attention, Mlp
from timm.models.swin_transformer import SwinTransformer
from timm.models.swin_transformer import checkpoint_filter_fn as fitted_swin
from timm.models.swin_transformer_v2 import SwinTransformerV2
from timm.models.vision_transformer import VisionTransformer
from timm.models.vision_transformer import checkpoint_filter_fn as fitted_vit
from torch import Tensor, nn

from faar_ray.config.trial import BackboneConfig
from faar_ray.errors import ConfigError, DataError
from faar_ray.models import micro
from faar_ray.models.vit.vit import QUARTERS, QuarteredViT
from faar_ray.models.vit.vit_block import ViTBlock
from faar_ray.seeding import seeded
from faar_ray.storage.torch_file import read_torch_file

MICRO_PATCH = 4
WANTED = f"{micro.NAME}, a timm Swin (swin_*) or a plain timm ViT (vit_*)"


def build_backbone(config: BackboneConfig, image_size: int, seed: int) -> SwinTransformer | QuarteredViT:
    """The backbone with its weights loaded; what trains in it is set by `set_trainable`.

    Raises:
        ConfigError: no such timm model, neither Swin nor plain ViT, or an image size that patches do not divide.
        DataError: weights that are missing, damaged or of another architecture.
    """
    check_backbone(config)
    load_from_hub = config.pretrained and config.checkpoint is None and config.name != micro.NAME
    with seeded(seed, "backbone"):
        if config.name == micro.NAME:
            _fit_patches(config.name, image_size, MICRO_PATCH)
            backbone = micro.architecture(image_size, config.drop_path)
        else:
            backbone = _from_timm(config, image_size, pretrained=load_from_hub)
    if config.checkpoint is not None:
        _load(backbone, _read_weights(Path(config.checkpoint)), config.checkpoint)
    elif config.pretrained and config.name == micro.NAME:
        _load(backbone, micro.weights(), micro.NAME)
    backbone.norm = nn.Identity()  # features are taken before the final norm (METHODS, shared ground)
    return QuarteredViT(backbone) if isinstance(backbone, VisionTransformer) else backbone


def set_trainable(backbone: nn.Module, what: str) -> None:
    """`none`; `light`: patch embedding, norms and position tables (MTLoRA's recipe); `all`."""
    for name, parameter in backbone.named_parameters():
        light = "norm" in name or "patch_embed" in name or name.endswith(("relative_position_bias_table", "pos_embed"))
        parameter.requires_grad_(what == "all" or (what == "light" and light))


def check_backbone(config: BackboneConfig) -> None:
    """Refuse a backbone that does not exist or cannot be adapted, without building it.

    Raises:
        ConfigError: no such timm model, or neither a Swin nor a plain ViT.
        DataError: no such checkpoint file.
    """
    if config.name != micro.NAME:
        if not timm.is_model(config.name):
            near = get_close_matches(config.name, [micro.NAME, *timm.list_models(["swin_*", "vit_*"])], n=1)
            meant = f" (did you mean {near[0]!r}?)" if near else ""
            raise ConfigError(f"backbone.name: must be {WANTED}, got {config.name!r}{meant}")
        _check_architecture(config.name, _outline(config.name))
    if config.checkpoint is not None and not Path(config.checkpoint).is_file():
        raise DataError(f"backbone.checkpoint: no such file: {config.checkpoint}")


def _outline(name: str) -> Any:
    """The model without memory for its weights."""
    with torch.device("meta"):
        return timm.create_model(name, num_classes=0)


def _from_timm(config: BackboneConfig, image_size: int, *, pretrained: bool) -> SwinTransformer | VisionTransformer:
    options: dict[str, Any] = {"num_classes": 0, "drop_path_rate": config.drop_path}
    _fit_patches(config.name, image_size, int(_outline(config.name).patch_embed.patch_size[0]))
    try:
        model = timm.create_model(config.name, pretrained=pretrained, img_size=image_size, **options)
    except OSError as error:
        raise DataError(
            f"backbone.pretrained: the weights of {config.name} could not be fetched ({type(error).__name__}); "
            "give a local file as backbone.checkpoint, or set backbone.pretrained: false"
        ) from error
    assert isinstance(model, SwinTransformer | VisionTransformer)
    return model


def _check_architecture(name: str, model: Any) -> None:
    """Raise ConfigError unless every linear of every block is a module that an adapter can stand around."""
    if isinstance(model, SwinTransformerV2):
        raise ConfigError(
            f"backbone.name: {name} cannot be adapted: a Swin v2 block multiplies by qkv.weight itself and normalises "
            f"after the residual, so an adapter around qkv would be passed by; must be {WANTED}"
        )
    if isinstance(model, SwinTransformer):
        return
    if type(model) is not VisionTransformer:
        raise ConfigError(f"backbone.name: must be {WANTED}, got {name!r} ({type(model).__name__})")
    blocks = list(model.blocks)
    if odd := next((b for b in blocks if type(b) is not ViTBlock or type(b.attn) is not Attention), None):
        kind = type(odd).__name__ if type(odd) is not ViTBlock else type(odd.attn).__name__
        raise ConfigError(f"backbone.name: {name} cannot be adapted: its blocks are no plain ViT blocks ({kind})")
    if any(getattr(b.attn, "gate", None) is not None or type(b.mlp) is not Mlp for b in blocks):
        raise ConfigError(f"backbone.name: {name} cannot be adapted: its attention or MLP is gated")
    if len(blocks) < QUARTERS:
        raise ConfigError(f"backbone.name: {name} has {len(blocks)} blocks, must have at least {QUARTERS}")


def _fit_patches(name: str, image_size: int, patch: int) -> None:
    """Windows that do not divide the grid are padded; patches that do not divide the image cannot be."""
    if image_size % patch:
        near = sorted({max(patch, image_size // patch * patch), -(-image_size // patch) * patch})
        raise ConfigError(
            f"data.image_size: must be a multiple of {patch}, the patch of {name}, got {image_size} "
            f"(near: {' or '.join(map(str, near))})"
        )


def _read_weights(path: Path) -> dict[str, Tensor]:
    try:
        if path.suffix == ".safetensors":
            return load_file(path)
        outer = read_torch_file(path, legacy=True)
    except (SafetensorError, OSError, DataError) as fault:
        reason = str(fault).removeprefix(f"{path}: ")
        raise DataError(f"backbone.checkpoint: {path} cannot be read as weights: {reason}") from None
    state = outer.get("model", outer.get("state_dict", outer))
    if not isinstance(state, Mapping) or not all(isinstance(value, Tensor) for value in state.values()):
        raise DataError(f"backbone.checkpoint: {path}: must hold tensors by name")
    return {str(key).removeprefix("module."): value for key, value in state.items()}


def _load(backbone: SwinTransformer | VisionTransformer, weights: dict[str, Tensor], source: str) -> None:
    """Load what belongs to the trunk, position tables resized to the windows; a classifier head is left out."""
    own = backbone.state_dict()
    trunk = {key: value.float() for key, value in weights.items() if not key.startswith("head.")}
    trunk = (fitted_swin if isinstance(backbone, SwinTransformer) else fitted_vit)(trunk, backbone)
    optional = {key for key in own if key.startswith("norm.")}
    missing = sorted(own.keys() - trunk.keys() - optional)
    unexpected = sorted(trunk.keys() - own.keys())
    reshaped = sorted(key for key in own.keys() & trunk.keys() if own[key].shape != trunk[key].shape)
    if missing or unexpected or reshaped:
        parts = {"missing": missing, "unexpected": unexpected, "of another shape": reshaped}
        told = "; ".join(f"{what}: {', '.join(keys[:5])} ({len(keys)})" for what, keys in parts.items() if keys)
        raise DataError(f"weights of {source} do not fit the backbone: {told}")
    backbone.load_state_dict({key: value for key, value in trunk.items() if key in own}, strict=False)
