"""What `bench step` compares: a floor without adapters, and variants with them, on the same backbone and heads.

Everywhere the backbone is frozen but for its norms, so that a ratio tells the price of adapters and nothing else.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from importlib.util import find_spec
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from faar_ray.config.trial import TrialConfig
from faar_ray.decoders import Decoder, HRNetHead
from faar_ray.models import MultiTaskModel, build_model
from faar_ray.seeding import seeded

TASKS = ("semseg", "human_parts", "saliency", "normals")
HRNET: dict[str, Any] = {"decoder.kind": "hrnet"}
VARIANTS: dict[str, dict[str, Any]] = {
    "dora_shared": {"method": "dora", "placement.task_layers": (), **HRNET},
    "faar_own": {"method": "faar", "placement.task_path": "own", **HRNET},
    "faar_shared": {"method": "faar", "placement.task_path": "shared", **HRNET},
    "faar_own_ts_pd": {"method": "faar", "placement.task_path": "own"},
    "free_sinewich": {"method": "free_sinewich"},
}
PEFT = "peft_dora"


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
        raw: dict[str, Any] = {
            "data": {"name": "pascal_context", "tasks": list(TASKS), "image_size": self.image_size},
            "backbone": {"name": self.backbone, "pretrained": False, "trainable": "none", "drop_path": 0.1},
        }
        return TrialConfig.resolve(raw, **self.keys, **{"ranks.init_rank": self.rank})


class Floor(nn.Module):
    """timm's own forward pass, once for all tasks, and the same heads as plain convolutions: what is written first."""

    backbone: Any
    decoder: Decoder

    def __init__(self, backbone: nn.Module, decoder: Decoder) -> None:
        super().__init__()
        self.backbone, self.decoder = backbone, decoder

    def forward(self, image_B3HW: Tensor) -> dict[str, Tensor]:
        """(B, 3, H, W) -> {task: (B, N_task, H, W)}."""
        x, pyramid = self.backbone.patch_embed(image_B3HW), []
        for s, stage in enumerate(self.backbone.layers):
            x = stage(x)
            if s > 0:
                pyramid.append(x.movedim(-1, 1))
        pyramid.append(x.movedim(-1, 1))
        size = (image_B3HW.shape[-2], image_B3HW.shape[-1])
        return {task: plain_head(self.decoder.head(task), pyramid, size) for task in self.decoder.heads}


def plain_head(head: HRNetHead, pyramid: Sequence[Tensor], size: tuple[int, int]) -> Tensor:
    """The head's function by conv2d and interpolate alone; maps (B, C_i, H_i, W_i), finest first -> (B, N, *size)."""
    reduced = head.reduce(pyramid)
    finest = reduced[0].shape[-2:]
    joined = torch.cat([reduced[0], *(F.interpolate(x, size=finest, mode="bilinear") for x in reduced[1:])], dim=1)
    return F.interpolate(head.output(F.relu(head.norm(head.hidden(joined)))), size=size, mode="bilinear")


def build(setting: Setting) -> nn.Module:
    """The model of a row, norms trainable."""
    if setting.variant == "floor":
        return _with_trainable_norms(_floor(setting))
    if setting.variant == PEFT:
        return _peft_dora(setting)
    model = build_model(setting.config())
    _move_away_from_start(model)
    return _with_trainable_norms(model)


def peft_is_there() -> bool:
    """HF PEFT is compared with where it is installed."""
    return find_spec("peft") is not None


def _floor(setting: Setting) -> Floor:
    bare = Setting(
        "floor", 1, setting.backbone, setting.image_size, setting.batch, keys={"method": "decoder_only", **HRNET}
    )
    model: MultiTaskModel = build_model(bare.config())
    return Floor(model.backbone, model.decoder)


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
        if isinstance(module, nn.LayerNorm):
            module.requires_grad_(True)
    return model


@torch.no_grad()
def _move_away_from_start(model: MultiTaskModel) -> None:
    """B = 0 has no denormals, no zeros either in training."""
    with seeded(0, "bench"):
        for name, parameter in model.named_parameters():
            if name.endswith("B_RO"):
                parameter.normal_(std=0.01)
