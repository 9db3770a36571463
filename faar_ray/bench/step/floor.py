"""The floor of each backbone family: timm's own forward pass, once for all tasks, and plain heads; no adapter.

What is written first, where a backbone is frozen but for its norms. Maps (B, C, H, W), finest first.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any, Self

import timm
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from faar_ray.decoders import Decoder, HRNetHead
from faar_ray.models.backbone import BACKBONES, family_of
from faar_ray.models.family import STRIDES

DROP_PATH = 0.1


class Floor(nn.Module):
    """A plain backbone, and the same heads as plain convolutions."""

    backbone: Any
    decoder: Decoder

    def __init__(self, backbone: nn.Module, decoder: Decoder, maps: Callable[[Any, Tensor], list[Tensor]]) -> None:
        super().__init__()
        self.backbone, self.decoder, self.maps = backbone, decoder, maps

    def forward(self, image_B3HW: Tensor) -> dict[str, Tensor]:
        """(B, 3, H, W) -> {task: (B, N_task, H, W)}."""
        pyramid = self.maps(self.backbone, image_B3HW)
        size = (image_B3HW.shape[-2], image_B3HW.shape[-1])
        return {task: plain_head(self.decoder.head(task), pyramid, size) for task in self.decoder.heads}

    def train(self, mode: bool = True) -> Self:
        """A backbone's batch norms keep their statistics, as in adapted backbones."""
        super().train(mode)
        for module in self.backbone.modules():
            if isinstance(module, nn.BatchNorm2d):
                module.eval()
        return self


def swin_maps(backbone: Any, image_B3HW: Tensor) -> list[Tensor]:
    """At strides 8, 16, 32, 32: after each patch merging, and at the end."""
    x, pyramid = backbone.patch_embed(image_B3HW), []
    for s, stage in enumerate(backbone.layers):
        x = stage(x)
        if s > 0:
            pyramid.append(x.movedim(-1, 1))
    return [*pyramid, x.movedim(-1, 1)]


def vit_maps(backbone: Any, image_B3HW: Tensor) -> list[Tensor]:
    """After each quarter of the blocks, resized to strides 8, 16, 32, 32."""
    size, pyramid = image_B3HW.shape[-2:], []
    x = backbone.tokens(image_B3HW)
    for quarter, stride in zip(backbone.layers, STRIDES["merged"], strict=True):
        for block in quarter.blocks:
            x = block(x)
        wanted = [-(-side // stride) for side in size]
        antialias = stride > backbone.patch
        pyramid.append(F.interpolate(backbone.grid(x[None], size)[0], wanted, mode="bilinear", antialias=antialias))
    return pyramid


def convnext_maps(backbone: Any, image_B3HW: Tensor) -> list[Tensor]:
    """At strides 8, 16, 32, 32: after each downsampling, and at the end."""
    x, pyramid = backbone.stem(image_B3HW.contiguous(memory_format=torch.channels_last)), []
    for s, stage in enumerate(backbone.stages):
        x = stage.downsample(x)
        if s > 0:
            pyramid.append(x)
        x = stage.blocks(x)
    return [*pyramid, x]


def convnet_maps(backbone: Any, image_B3HW: Tensor) -> list[Tensor]:
    """At strides 4, 8, 16, 32, by timm's own extractor of features."""
    maps: list[Tensor] = backbone(image_B3HW.contiguous(memory_format=torch.channels_last))
    return maps[-4:]


MAPS: dict[str, Callable[[Any, Tensor], list[Tensor]]] = {
    "swin_micro": swin_maps,
    "swin": swin_maps,
    "vit": vit_maps,
    "convnext": convnext_maps,
    "efficientnet": convnet_maps,
}


def family_name(backbone: str) -> str:
    """The key in `BACKBONES` of a backbone's family.

    Raises:
        ConfigError: no family recognises the name.
    """
    family = family_of(backbone)
    return next(name for name, other in BACKBONES.items() if other is family)


def build_floor(name: str, built: nn.Module, decoder: Decoder) -> Floor:
    """A backbone's floor.

    Args:
        name: `backbone.name`.
        built: the backbone as an unadapted model has it.
        decoder: of that model.
    """
    family = family_name(name)
    if family == "convnext":
        built = timm.create_model(name, drop_path_rate=DROP_PATH)
        built.head = nn.Identity()
    elif family == "efficientnet":
        built = timm.create_model(name, features_only=True, drop_path_rate=DROP_PATH)
    if family in ("convnext", "efficientnet"):
        built = built.requires_grad_(False).to(memory_format=torch.channels_last)
    return Floor(built, decoder, MAPS[family])


def plain_head(head: HRNetHead, pyramid: Sequence[Tensor], size: tuple[int, int]) -> Tensor:
    """The head's function by conv2d and interpolate alone; maps (B, C_i, H_i, W_i), finest first -> (B, N, *size)."""
    reduced = head.reduce(pyramid)
    finest = reduced[0].shape[-2:]
    joined = torch.cat([reduced[0], *(F.interpolate(x, size=finest, mode="bilinear") for x in reduced[1:])], dim=1)
    return F.interpolate(head.output(F.relu(head.norm(head.hidden(joined)))), size=size, mode="bilinear")
