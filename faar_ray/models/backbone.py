"""BACKBONES: the families that `backbone.name` may come from, and the checks of all of them."""

from __future__ import annotations

from difflib import get_close_matches

import timm
from torch import nn

from faar_ray.config.trial import BackboneConfig
from faar_ray.errors import ConfigError
from faar_ray.models import micro
from faar_ray.models.convnext.family import CONVNEXT
from faar_ray.models.efficientnet.family import EFFICIENTNET
from faar_ray.models.family import BackboneFamily
from faar_ray.models.swin.family import MICRO, SWIN
from faar_ray.models.timm_weights import outline
from faar_ray.models.vit.family import VIT
from faar_ray.models.weight_file import check_weight_file
from faar_ray.models.weight_packages import check_package, located
from faar_ray.seeding import seeded
from faar_ray.storage.torch_file import digest_of_values

BACKBONES: dict[str, BackboneFamily] = {
    "swin_micro": MICRO,
    "swin": SWIN,
    "vit": VIT,
    "efficientnet": EFFICIENTNET,
    "convnext": CONVNEXT,
}
"""The first that recognises a name takes it."""
SUGGESTED = ["swin_*", "vit_*", "convnext*", "*efficientnet*", "mobilenet*", "mnasnet*"]
"""timm's names that one may have meant."""
STATISTICS = ("running_mean", "running_var")
RESIZED = ("pos_embed", "relative_position_bias_table", "patch_embed.proj.weight")


def family_of(name: str) -> BackboneFamily:
    """The family of a backbone.

    Raises:
        ConfigError: no family recognises the name, or timm has no weights of its tag.
    """
    check_tag(name)
    if family := next((family for family in BACKBONES.values() if family.recognises(name)), None):
        return family

    *others, last = (family.wanted for family in BACKBONES.values())
    wanted = f"{', '.join(others)} or {last}"
    if (model := outline(name)) is not None:
        raise ConfigError(f"backbone.name: must be {wanted}, got {name!r} ({type(model).__name__})")
    common = [TORCHVISION[name]] if name in TORCHVISION else []
    near = common or get_close_matches(name, [micro.NAME, *BACKBONES, *timm.list_models(SUGGESTED)], n=1)
    hint = f" (did you mean {near[0]!r}?)" if near else ""
    raise ConfigError(f"backbone.name: must be {wanted}, got {name!r}{hint}")


TORCHVISION = {
    **{f"swin_{size[0]}": f"swin_{size}_patch4_window7_224" for size in ("tiny", "small", "base")},
    **{f"swin_{size}": f"swin_{size}_patch4_window7_224" for size in ("tiny", "small", "base", "large")},
    **{f"vit_{size[0]}_{patch}": f"vit_{size}_patch{patch}_224" for size in ("base", "large") for patch in (16, 32)},
    **{f"vit_{size}": f"vit_{size}_patch16_224" for size in ("tiny", "small", "base", "large")},
    **{f"efficientnet_v2_{size}": f"tf_efficientnetv2_{size}" for size in ("s", "m", "l")},
    **{f"mobilenet_v3_{size}": f"mobilenetv3_{size}_100" for size in ("small", "large")},
    "mobilenet_v2": "mobilenetv2_100",
    "mnasnet1_0": "mnasnet_100",
}
"""Short names, torchvision's and papers', and timm's name of that backbone."""


def check_backbone(config: BackboneConfig) -> BackboneFamily:
    """Refuse a backbone that does not exist or cannot be adapted, without building it; gives its family.

    Raises:
        ConfigError: no such backbone, one that cannot be adapted, one without pretrained weights, or a package of
            weights that is unknown, not installed or of another backbone.
        DataError: no such checkpoint file.
    """
    family = family_of(config.name)
    family.check(config.name)
    check_package(config)
    if config.checkpoint is not None:
        check_weight_file(located(config.checkpoint))
    elif config.pretrained and timm.is_model(config.name):
        check_pretrained(config.name)
    return family


def check_tag(name: str) -> None:
    """Refuse a timm name with a tag of weights (`NAME.TAG`) that its model has not, of which timm cannot even build.

    Raises:
        ConfigError: with the tags that there are.
    """
    model, _, tag = name.partition(".")
    if tag and timm.is_model(name) and name not in (known := timm.list_models(f"{model}.*", pretrained=True)):
        has = f"has {', '.join(known)}" if known else f"there are none of {model}"
        near = get_close_matches(name, known, n=1)
        hint = f" (did you mean {near[0]!r}?)" if near else ""
        raise ConfigError(f"backbone.name: timm {has}; got {name!r}{hint}")


def check_pretrained(name: str) -> None:
    """Refuse `pretrained: true` for a timm model of which no weights exist.

    Raises:
        ConfigError: with names that have weights.
    """
    if timm.models.is_model_pretrained(name):
        return
    with_weights = timm.list_models(f"{name}.*", pretrained=True)
    family = name.split("_")[0]
    near = with_weights or get_close_matches(name, timm.list_models(f"{family}_*", pretrained=True), n=3)
    raise ConfigError(
        f"backbone.pretrained: must be false for {name}, of which no pretrained weights exist"
        + (f" (there are some of {', '.join(near)})" if near else "")
    )


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


def digest_of_weights(backbone: nn.Module) -> str:
    """A sha256 that tells a backbone's weights from others, before adapters are added.

    It does not depend on their names, their order or the image size: tables that are resized to it are left out.
    Statistics of batch norms count as weights.
    """
    weights = [value for name, value in backbone.named_parameters() if not name.endswith(RESIZED)]
    statistics = [value for name, value in backbone.named_buffers() if name.endswith(STATISTICS)]
    return digest_of_values([*weights, *statistics])
