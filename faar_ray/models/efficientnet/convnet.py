"""timm's EfficientNet and MobileNet classes in four stages, at strides 4, 8, 16 and 32.

Axes: S streams (1 or T tasks), B batch, C channels, H W space.
"""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Sequence
from itertools import pairwise
from typing import Any, Self

from timm.models.efficientnet import EfficientNet
from timm.models.mobilenetv3 import MobileNetV3
from torch import Tensor, nn

from faar_ray.models.channels_last import StagedNet, run_blocks
from faar_ray.models.efficientnet.conv_block import ConvBlock
from faar_ray.models.ensemble import TaskEnsemble
from faar_ray.models.family import STRIDES
from faar_ray.models.multitask import MultiTaskModel
from faar_ray.models.swin.levels import Level

STAGES = len(STRIDES["stages"])


class ConvStage(nn.Module):
    """Successive blocks whose last one ends at one stride."""

    def __init__(self, blocks: Sequence[nn.Module]) -> None:
        super().__init__()
        self.downsample = nn.Identity()  # its first block does that
        self.blocks = nn.ModuleList(map(ConvBlock, blocks))


class StagedConvNet(StagedNet):
    """Stem and four stages; what timm has behind them is left out. Batch norms keep their statistics."""

    def __init__(self, network: EfficientNet | MobileNetV3) -> None:
        super().__init__()
        stem = OrderedDict(conv=network.conv_stem, norm=network.bn1)
        self.patch_embed = nn.Sequential(stem)
        self.layers = nn.ModuleList(map(ConvStage, stages_of(network)))
        self.feature_info = [dict(level) for level in network.feature_info[-STAGES:]]

    def train(self, mode: bool = True) -> Self:
        """Batch norms stay as in evaluation: parts of a batch, streams and workers would each have other statistics."""
        super().train(mode)
        for module in self.modules():
            if isinstance(module, nn.BatchNorm2d):
                module.eval()
        return self


def stages_of(network: Any) -> list[list[nn.Module]]:
    """The blocks of each stage; those at stride 2 are the first of the first stage."""
    ends = [0, *network.stage_ends[-STAGES:]]
    return [[block for group in network.blocks[start:stop] for block in group] for start, stop in pairwise(ends)]


class MultiTaskConvNet(MultiTaskModel):
    """image -> {task: prediction} over a `StagedConvNet`."""

    def levels(self, image_B3HW: Tensor) -> list[Level]:
        """Each stage's map, (T or 1, B, H', W', C'), at strides 4, 8, 16, 32."""
        x, pyramid = self.backbone.stem(image_B3HW), []
        for stage in self.backbone.layers:
            x, streams = run_blocks(stage.blocks, x)
            pyramid.append(Level(streams))
        return pyramid


class ConvNetEnsemble(TaskEnsemble, MultiTaskConvNet):
    """The same with a stream for each task from the image on."""
