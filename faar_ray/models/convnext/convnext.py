"""timm's ConvNeXt as tokens that lie channels-last, in its own four stages.

Axes: S streams (1 or T tasks), B batch, C channels, H W space.
"""

from __future__ import annotations

from collections import OrderedDict
from typing import Any

import torch
from timm.models.convnext import ConvNeXt
from torch import Tensor, nn

from faar_ray.models.convnext.block import TokenBlock
from faar_ray.models.efficientnet.conv_block import ConvTaskBlock, by_image, run_blocks
from faar_ray.models.ensemble import TaskEnsemble
from faar_ray.models.multitask import MultiTaskModel
from faar_ray.models.swin.levels import Level


class TokenStage(nn.Module):
    """A norm and a 2x2 convolution that halve the map (none in the first stage), and blocks."""

    def __init__(self, stage: Any) -> None:
        super().__init__()
        halving = stage.downsample
        self.downsample = (
            nn.Sequential(OrderedDict(norm=halving[0], conv=halving[1]))
            if isinstance(halving, nn.Sequential)
            else nn.Sequential()
        )
        self.blocks = nn.ModuleList(map(TokenBlock, stage.blocks))


class StagedConvNeXt(nn.Module):
    """Stem and four stages; what timm has behind them is left out."""

    def __init__(self, network: ConvNeXt) -> None:
        super().__init__()
        self.patch_embed = network.stem
        self.layers: Any = nn.ModuleList(map(TokenStage, network.stages))
        self.feature_info = [dict(level) for level in network.feature_info]

    def stem(self, image_B3HW: Tensor) -> Tensor:
        """(B, 3, H, W) -> (B, H / 4, W / 4, C)."""
        x: Tensor = self.patch_embed(image_B3HW)
        return x.permute(0, 2, 3, 1)

    def forward_features_list(self, image_B3HW: Tensor) -> list[Tensor]:
        """The four maps (B, C, H, W) at strides 4, 8, 16, 32 where no block is task-specific."""
        x, maps = self.stem(image_B3HW), []
        for stage in self.layers:
            x = by_image(stage.downsample, x[None])[0]
            for block in stage.blocks:
                x = block(x)
            maps.append(x.permute(0, 3, 1, 2))
        return maps


class MultiTaskConvNeXt(MultiTaskModel):
    """image -> {task: prediction} over a `StagedConvNeXt`."""

    def levels(self, image_B3HW: Tensor) -> list[Level]:
        """Each stage's map, (T or 1, B, H', W', C'): merged, at strides 8, 16, 32, 32, or not, at 4, 8, 16, 32."""
        stages, pyramid = list(self.backbone.layers), []
        x: Tensor = self.backbone.stem(image_B3HW)
        for stage, following in zip(stages, [*stages[1:], None], strict=True):
            shared, streams = run_blocks(stage.blocks, x)
            if following is None:
                pyramid.append(Level(streams))
                break
            assert shared is not None  # it ends in the last stage only
            if not self.merged:
                pyramid.append(Level(streams))
                x = by_image(following.downsample, shared[None])[0]
                continue
            own = isinstance(stage.blocks[-1], ConvTaskBlock)
            halved = by_image(following.downsample, torch.cat([shared[None], streams]) if own else streams)
            x = halved[0]
            pyramid.append(Level(halved[1:] if own else halved))
        return pyramid


class ConvNeXtEnsemble(TaskEnsemble, MultiTaskConvNeXt):
    """The same with a stream for each task from the image on."""
