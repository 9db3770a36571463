"""What families of timm models share: a model without weights, its construction, and local weights."""

from __future__ import annotations

import warnings
from collections.abc import Callable, Mapping
from functools import lru_cache
from typing import Any

import timm
import torch
from torch import Tensor, nn

from faar_ray.config.trial import BackboneConfig
from faar_ray.errors import DataError
from faar_ray.models.weight_file import read_weights
from faar_ray.models.weight_formats import check_statistics, timm_names
from faar_ray.models.weight_packages import located

Fit = Callable[[dict[str, Tensor], Any], dict[str, Tensor]]
"""timm's `checkpoint_filter_fn` of an architecture: resizes position tables."""
Sides = tuple[int, str]
"""What both sides of an image must be multiples of, and what of a backbone it is."""
UNUSED = ("head.", "head_dist.", "norm.", "fc_norm.", "attn_pool.", "classifier.", "conv_head.", "bn2.", "norm_head.")
"""Classifiers, and the pools and norms before them; maps are taken before the last norm."""

COUNTERS = "num_batches_tracked"
"""Of batch norms, whose statistics stay as they are."""


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
        DataError: weights that are missing, damaged or of another architecture.
    """
    options: dict[str, Any] = {"num_classes": 0, "drop_path_rate": config.drop_path}
    if hasattr(outline(config.name), "patch_embed"):
        options["img_size"] = size
    pretrained = config.pretrained and config.checkpoint is None
    try:
        model = timm.create_model(config.name, pretrained=pretrained, **options)
    except Exception as error:
        if not pretrained:
            raise
        raise DataError(
            f"backbone.pretrained: the weights of {config.name} could not be fetched ({type(error).__name__}); "
            "give a local file as backbone.checkpoint, or set backbone.pretrained: false"
        ) from error
    load_checkpoint(model, config, fit)
    return model


def patch_of(name: str) -> Sides:
    """Windows that do not divide the grid are padded; patches that do not divide the image cannot be."""
    return int(outline(name).patch_embed.patch_size[0]), "the patch"


def load_checkpoint(model: nn.Module, config: BackboneConfig, fit: Fit) -> None:
    """The weights of `backbone.checkpoint`, if any."""
    if config.checkpoint is None:
        return
    source = f"backbone.checkpoint: {config.checkpoint}"
    weights = read_weights(located(config.checkpoint))
    check_statistics(weights, model, config)
    load_weights(model, timm_names(weights, model, source), source, fit)


def load_weights(model: nn.Module, weights: dict[str, Tensor], source: str, fit: Fit) -> None:
    """Load what belongs to the trunk, position tables resized to the windows; head and last norm are left out.

    Raises:
        DataError: naming the first weights that do not fit, or that are not finite.
    """
    expected = model.state_dict()
    given = {key: value.float() for key, value in _used(weights).items()}
    fitted, fault = _fitted(given, model, fit)
    trunk = _used(fitted)  # a filter may make a classifier of what was none by its name
    missing = sorted(key for key in _used(expected).keys() - trunk.keys() if not key.endswith(COUNTERS))
    unexpected = sorted(trunk.keys() - expected.keys())
    reshaped = [key for key in sorted(expected.keys() & trunk.keys()) if expected[key].shape != trunk[key].shape]
    shapes = [f"{key} ({_shape(trunk[key])}, must be {_shape(expected[key])})" for key in reshaped]
    parts = {"missing": missing, "unexpected": unexpected, "of another shape": shapes}
    if fault:
        parts["not resized"] = [fault]
    if text := "; ".join(f"{what}: {', '.join(keys[:5])} ({len(keys)})" for what, keys in parts.items() if keys):
        raise DataError(f"{source}: does not fit the backbone: {text}")
    if broken := [key for key, value in trunk.items() if not value.isfinite().all()]:
        raise DataError(f"{source}: has values that are not finite: {', '.join(broken[:5])} ({len(broken)})")
    model.load_state_dict(trunk, strict=False)


def _used(weights: Mapping[str, Tensor]) -> dict[str, Tensor]:
    return {key: value for key, value in weights.items() if not key.startswith(UNUSED)}


def _fitted(given: dict[str, Tensor], model: nn.Module, fit: Fit) -> tuple[dict[str, Tensor], str]:
    """The weights after timm's filter, or as they are and what timm says of those of another architecture."""
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # of timm's own use of torch
            return fit(given, model), ""
    except Exception as fault:  # of whatever class, by what the weights lack or have too much
        return given, f"{type(fault).__name__}: {fault}"


def _shape(tensor: Tensor) -> str:
    return "x".join(map(str, tensor.shape)) or "one number"
