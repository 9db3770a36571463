"""BACKBONES: the families that `backbone.name` may come from, and the checks of all of them."""

from __future__ import annotations

from difflib import get_close_matches
from pathlib import Path

import timm
from torch import nn

from faar_ray.config.trial import BackboneConfig
from faar_ray.errors import ConfigError, DataError
from faar_ray.models import micro
from faar_ray.models.family import BackboneFamily
from faar_ray.models.swin.family import MICRO, SWIN
from faar_ray.models.timm_weights import outline
from faar_ray.models.vit.family import VIT
from faar_ray.seeding import seeded

BACKBONES: dict[str, BackboneFamily] = {"swin_micro": MICRO, "swin": SWIN, "vit": VIT}
"""The first that recognises a name takes it."""


def family_of(name: str) -> BackboneFamily:
    """The family of a backbone.

    Raises:
        ConfigError: no family recognises the name.
    """
    if family := next((family for family in BACKBONES.values() if family.recognises(name)), None):
        return family

    *others, last = (family.wanted for family in BACKBONES.values())
    wanted = f"{', '.join(others)} or {last}"
    if (model := outline(name)) is not None:
        raise ConfigError(f"backbone.name: must be {wanted}, got {name!r} ({type(model).__name__})")
    near = get_close_matches(name, [micro.NAME, *BACKBONES, *timm.list_models(["swin_*", "vit_*"])], n=1)
    hint = f" (did you mean {near[0]!r}?)" if near else ""
    raise ConfigError(f"backbone.name: must be {wanted}, got {name!r}{hint}")


def check_backbone(config: BackboneConfig) -> BackboneFamily:
    """Refuse a backbone that does not exist or cannot be adapted, without building it; gives its family.

    Raises:
        ConfigError: no such backbone, or one that cannot be adapted.
        DataError: no such checkpoint file.
    """
    family = family_of(config.name)
    family.check(config.name)
    if config.checkpoint is not None and not Path(config.checkpoint).is_file():
        raise DataError(f"backbone.checkpoint: no such file: {config.checkpoint}")
    return family


def build_backbone(config: BackboneConfig, size: tuple[int, int], seed: int) -> nn.Module:
    """The backbone with its weights loaded, and the parameters of `backbone.trainable` set to train.

    Args:
        config: which, and its weights.
        size: height and width of the images.
        seed: of inits.

    Raises:
        ConfigError: no such backbone, or an image size that its patches do not divide.
        DataError: weights that are missing, damaged or of another architecture.
    """
    family = check_backbone(config)
    with seeded(seed, "backbone"):
        backbone = family.build(config, size)
    for name, parameter in backbone.named_parameters():
        light = config.trainable == "light" and family.is_light(name)
        parameter.requires_grad_(config.trainable == "all" or light)
    return backbone
