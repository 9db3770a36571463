"""What `bench step` compares: a floor without adapters, and variants with them, on the same backbone and heads.

Everywhere the backbone is frozen but for its norms, so that a ratio tells the price of adapters and nothing else.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from importlib.util import find_spec
from typing import Any

import torch
from torch import nn

from faar_ray.bench.step.floor import DROP_PATH, Floor, build_floor, family_name
from faar_ray.config.trial import TrialConfig
from faar_ray.errors import ConfigError
from faar_ray.models import MultiTaskModel, build_model
from faar_ray.models.backbone import family_of
from faar_ray.models.family import check_placement
from faar_ray.seeding import seeded

TASKS = ("semseg", "human_parts", "saliency", "normals")
HRNET: dict[str, Any] = {"decoder.kind": "hrnet"}
VARIANTS: dict[str, dict[str, Any]] = {
    "dora_shared": {"method": "dora", "placement.task_layers": (), **HRNET},
    "lora": {"method": "lora"},
    "faar_own": {"method": "faar", "placement.task_path": "own", **HRNET},
    "faar_shared": {"method": "faar", "placement.task_path": "shared", **HRNET},
    "faar_own_ts_pd": {"method": "faar", "placement.task_path": "own"},
    "faar_release": {"method": "faar_release"},
    "mtlora": {"method": "mtlora"},
    "mtlora_plus": {"method": "mtlora_plus"},
    "tadformer": {"method": "tadformer"},
    "tadformer_release": {"method": "tadformer_release"},
    "ditask": {"method": "ditask"},
    "ditask_release": {"method": "ditask_release"},
    "free_sinewich": {"method": "free_sinewich"},
    "sinewich_1x1": {"method": "sinewich_1x1"},
    "adalora": {"method": "adalora"},
}
PEFT = "peft_dora"
FAMILIES = {
    "swin": "swin_tiny_patch4_window7_224",
    "vit": "vit_small_patch16_224",
    "convnext": "convnext_tiny",
    "efficientnet": "tf_efficientnet_lite0",
}
"""A small member of each family."""


@dataclass(frozen=True)
class Setting:
    """One row's model, in plain values: a process that measures memory gets it by pickle."""

    variant: str
    rank: int
    backbone: str
    image_size: int
    batch: int
    precision: str = "fp32"
    compiled: bool = False
    keys: dict[str, Any] = field(default_factory=dict)

    def config(self) -> TrialConfig:
        """The trial config of a variant of ours."""
        pyramid = next(iter(family_of(self.backbone).strides))
        raw: dict[str, Any] = {
            "data": {"name": "pascal_context", "tasks": list(TASKS), "image_size": self.image_size},
            "backbone": {
                "name": self.backbone,
                "pretrained": False,
                "trainable": "none",
                "drop_path": DROP_PATH,
                "pyramid": pyramid,
            },
        }
        return TrialConfig.resolve(raw, **self.keys, **{"ranks.init_rank": self.rank})


def build(setting: Setting) -> nn.Module:
    """The model of a row, norms trainable."""
    if setting.variant == "floor":
        return _with_trainable_norms(_floor(setting))
    if setting.variant == PEFT:
        return _peft_dora(setting)
    model = build_model(setting.config())
    _move_away_from_start(model)
    return _with_trainable_norms(model)


def check_variant(backbone: str, keys: dict[str, Any]) -> None:
    """See that a backbone takes a variant.

    Raises:
        ConfigError: naming the key.
    """
    check_placement(family_of(backbone), Setting("", 1, backbone, 224, 1, keys=keys).config())


def taken_by(backbone: str, variants: dict[str, dict[str, Any]]) -> dict[str, dict[str, Any]]:
    """The variants that a backbone takes: MTLoRA's task path is not for a ViT, PEFT's rows are for linears."""
    taken = {}
    for name, keys in variants.items():
        if name == PEFT and family_name(backbone) == "efficientnet":
            continue
        try:
            check_variant(backbone, keys)
        except ConfigError:
            continue
        taken[name] = keys
    return taken


def peft_is_there() -> bool:
    """HF PEFT is compared with where it is installed."""
    return find_spec("peft") is not None


def _floor(setting: Setting) -> Floor:
    bare = Setting(
        "floor", 1, setting.backbone, setting.image_size, setting.batch, keys={"method": "decoder_only", **HRNET}
    )
    model: MultiTaskModel = build_model(bare.config())
    return build_floor(setting.backbone, model.backbone, model.decoder)


def _peft_dora(setting: Setting) -> nn.Module:
    """One DoRA for all tasks on qkv, proj, fc1 and fc2 of every block, by HF PEFT."""
    from peft import LoraConfig, inject_adapter_in_model

    model = _floor(setting)
    linears = r"backbone\..*(attn\.(qkv|proj)|mlp\.(fc1|fc2))"
    inject_adapter_in_model(LoraConfig(r=setting.rank, use_dora=True, target_modules=linears), model)
    model.decoder.requires_grad_(True)
    return _with_trainable_norms(model)


def _with_trainable_norms(model: nn.Module) -> nn.Module:
    for module in model.modules():
        if isinstance(module, nn.LayerNorm | nn.BatchNorm2d):
            module.requires_grad_(True)
    return model


@torch.no_grad()
def _move_away_from_start(model: MultiTaskModel) -> None:
    """B = 0 has no denormals, no zeros either in training."""
    with seeded(0, "bench"):
        for name, parameter in model.named_parameters():
            if name.endswith(("B_RO", "E_R", "theta_1K")):
                parameter.normal_(std=0.01)
