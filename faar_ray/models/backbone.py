"""Backbones: any timm Swin, and the package's own `swin_micro`."""

from __future__ import annotations

from difflib import get_close_matches
from pathlib import Path
from typing import Any

import timm
import torch
from safetensors.torch import load_file
from timm.models.swin_transformer import SwinTransformer, checkpoint_filter_fn
from torch import Tensor, nn

from faar_ray.config import BackboneConfig
from faar_ray.errors import ConfigError, DataError
from faar_ray.models import micro
from faar_ray.seeding import seeded


def build_backbone(config: BackboneConfig, image_size: int, seed: int) -> SwinTransformer:
    """The backbone with its weights loaded; what trains in it is set by `set_trainable`.

    Raises:
        ConfigError: no such timm model, or not a Swin.
        DataError: weights that are missing, damaged or of another architecture.
    """
    check_backbone(config)
    load_from_hub = config.pretrained and config.checkpoint is None and config.name != micro.NAME
    with seeded(seed, "backbone"):
        if config.name == micro.NAME:
            backbone = micro.architecture(image_size, config.drop_path)
        else:
            backbone = _timm_swin(config, image_size, pretrained=load_from_hub)
    if config.checkpoint is not None:
        _load(backbone, _read_weights(Path(config.checkpoint)), config.checkpoint)
    elif config.pretrained and config.name == micro.NAME:
        _load(backbone, micro.weights(), micro.NAME)
    backbone.norm = nn.Identity()  # features are taken before the final norm (METHODS, shared ground)
    return backbone


def set_trainable(backbone: SwinTransformer, what: str) -> None:
    """`none`; `light`: patch embedding, norms and relative-position tables (MTLoRA's recipe); `all`."""
    for name, parameter in backbone.named_parameters():
        light = "norm" in name or name.startswith("patch_embed") or name.endswith("relative_position_bias_table")
        parameter.requires_grad_(what == "all" or (what == "light" and light))


def check_backbone(config: BackboneConfig) -> None:
    """Refuse a backbone that does not exist, without building it.

    Raises:
        ConfigError: no such timm model, or not a Swin.
        DataError: no such checkpoint file.
    """
    if config.name != micro.NAME and not timm.is_model(config.name):
        near = get_close_matches(config.name, [micro.NAME, *timm.list_models("swin_*")], n=1)
        meant = f" (did you mean {near[0]!r}?)" if near else ""
        raise ConfigError(f"backbone.name: must be {micro.NAME} or a timm Swin, got {config.name!r}{meant}")
    if not config.name.startswith("swin_"):
        raise ConfigError(f"backbone.name: must be {micro.NAME} or a timm Swin (swin_*), got {config.name!r}")
    if config.checkpoint is not None and not Path(config.checkpoint).is_file():
        raise DataError(f"backbone.checkpoint: no such file: {config.checkpoint}")


def _timm_swin(config: BackboneConfig, image_size: int, *, pretrained: bool) -> SwinTransformer:
    options: dict[str, Any] = {"num_classes": 0, "img_size": image_size, "drop_path_rate": config.drop_path}
    try:
        model = timm.create_model(config.name, pretrained=pretrained, **options)
    except OSError as error:
        raise DataError(
            f"backbone.pretrained: the weights of {config.name} could not be fetched ({type(error).__name__}); "
            "give a local file as backbone.checkpoint, or set backbone.pretrained: false"
        ) from error
    assert isinstance(model, SwinTransformer)
    return model


def _read_weights(path: Path) -> dict[str, Tensor]:
    try:
        if path.suffix == ".safetensors":
            return load_file(path)
        state = torch.load(path, map_location="cpu", weights_only=True)
    except Exception as error:
        raise DataError(f"backbone.checkpoint: {path} cannot be read as weights: {error}") from error
    state = state.get("model", state.get("state_dict", state))
    return {key.removeprefix("module."): value for key, value in state.items()}


def _load(backbone: SwinTransformer, weights: dict[str, Tensor], source: str) -> None:
    """Load what belongs to the trunk, position tables resized to the windows; a classifier head is left out."""
    own = backbone.state_dict()
    trunk = {key: value.float() for key, value in weights.items() if not key.startswith("head.")}
    trunk = checkpoint_filter_fn(trunk, backbone)
    optional = {key for key in own if key.startswith("norm.")}
    missing = sorted(own.keys() - trunk.keys() - optional)
    unexpected = sorted(trunk.keys() - own.keys())
    reshaped = sorted(key for key in own.keys() & trunk.keys() if own[key].shape != trunk[key].shape)
    if missing or unexpected or reshaped:
        parts = {"missing": missing, "unexpected": unexpected, "of another shape": reshaped}
        told = "; ".join(f"{what}: {', '.join(keys[:5])} ({len(keys)})" for what, keys in parts.items() if keys)
        raise DataError(f"weights of {source} do not fit the backbone: {told}")
    backbone.load_state_dict({key: value for key, value in trunk.items() if key in own}, strict=False)
