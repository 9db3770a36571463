"""What families of timm models share: a model without weights, its construction, and local weights."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from functools import lru_cache
from pathlib import Path
from typing import Any

import timm
import torch
from safetensors import SafetensorError
from safetensors.torch import load_file
from torch import Tensor, nn

from faar_ray.config.trial import BackboneConfig
from faar_ray.errors import ConfigError, DataError
from faar_ray.storage.torch_file import read_torch_file

Fit = Callable[[dict[str, Tensor], Any], dict[str, Tensor]]
"""timm's `checkpoint_filter_fn` of an architecture: resizes position tables."""


@lru_cache(maxsize=8)
def outline(name: str) -> Any:
    """The timm model without memory for its weights; None where timm has none of this name."""
    if not timm.is_model(name):
        return None
    with torch.device("meta"):
        return timm.create_model(name, num_classes=0)


def build_timm(config: BackboneConfig, size: tuple[int, int], fit: Fit) -> Any:
    """The timm model with hub weights, those of `backbone.checkpoint`, or as initialised.

    Raises:
        ConfigError: an image size that patches do not divide.
        DataError: weights that are missing, damaged or of another architecture.
    """
    check_patches(config.name, size, int(outline(config.name).patch_embed.patch_size[0]))
    options: dict[str, Any] = {"num_classes": 0, "drop_path_rate": config.drop_path, "img_size": size}
    try:
        pretrained = config.pretrained and config.checkpoint is None
        model = timm.create_model(config.name, pretrained=pretrained, **options)
    except OSError as error:
        raise DataError(
            f"backbone.pretrained: the weights of {config.name} could not be fetched ({type(error).__name__}); "
            "give a local file as backbone.checkpoint, or set backbone.pretrained: false"
        ) from error
    load_checkpoint(model, config, fit)
    return model


def check_patches(name: str, size: tuple[int, int], patch: int) -> None:
    """Windows that do not divide the grid are padded; patches that do not divide the image cannot be.

    Raises:
        ConfigError: naming the nearest sizes that can.
    """
    if odd := next((side for side in size if side % patch), None):
        near = sorted({max(patch, odd // patch * patch), -(-odd // patch) * patch})
        raise ConfigError(
            f"data.image_size: must be a multiple of {patch}, the patch of {name}, got {odd} "
            f"(near: {' or '.join(map(str, near))})"
        )


def load_checkpoint(model: nn.Module, config: BackboneConfig, fit: Fit) -> None:
    """The weights of `backbone.checkpoint`, if any."""
    if config.checkpoint is not None:
        load_weights(model, read_weights(Path(config.checkpoint)), config.checkpoint, fit)


def read_weights(path: Path) -> dict[str, Tensor]:
    """Tensors by name, of a .safetensors file or one of `torch.save`.

    Raises:
        DataError: it cannot be read, or holds something else.
    """
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


def load_weights(model: nn.Module, weights: dict[str, Tensor], source: str, fit: Fit) -> None:
    """Load what belongs to the trunk, position tables resized to the windows; a classifier head is left out.

    Raises:
        DataError: naming the first weights that do not fit.
    """
    expected = model.state_dict()
    trunk = fit({key: value.float() for key, value in weights.items() if not key.startswith("head.")}, model)
    optional = {key for key in expected if key.startswith("norm.")}
    missing = sorted(expected.keys() - trunk.keys() - optional)
    unexpected = sorted(trunk.keys() - expected.keys())
    reshaped = sorted(key for key in expected.keys() & trunk.keys() if expected[key].shape != trunk[key].shape)
    if missing or unexpected or reshaped:
        parts = {"missing": missing, "unexpected": unexpected, "of another shape": reshaped}
        text = "; ".join(f"{what}: {', '.join(keys[:5])} ({len(keys)})" for what, keys in parts.items() if keys)
        raise DataError(f"weights of {source} do not fit the backbone: {text}")
    model.load_state_dict({key: value for key, value in trunk.items() if key in expected}, strict=False)
