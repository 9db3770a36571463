"""timm's ConvNeXt as tokens that lie channels-last, in its own four stages.

Axes: S streams (1 or T tasks), B batch, C channels, H W space.
"""

from __future__ import annotations

from typing import Any

from timm.models.convnext import ConvNeXt
from torch import Tensor, nn

from faar_ray.models.channels_last import ConvTaskBlock, StagedNet, by_image, run_blocks
from faar_ray.models.convnext.block import MlpBlock
from faar_ray.models.ensemble import TaskEnsemble
from faar_ray.models.multitask import MultiTaskModel
from faar_ray.models.swin.levels import Level


class Halving(nn.Module):
    """timm's norm and 2x2 convolution of stride 2, which is a linear over 2x2 neighbours; both sides must be even."""

    def __init__(self, norm: nn.Module, conv: nn.Conv2d) -> None:
        super().__init__()
        self.norm = nn.Sequential(norm)
        linear = nn.Linear(4 * conv.in_channels, conv.out_channels, bias=conv.bias is not None, device="meta")
        linear.weight = nn.Parameter(conv.weight.detach().permute(0, 2, 3, 1).flatten(1))
        linear.bias = conv.bias  # type: ignore[assignment]
        self.reduction: nn.Module = linear

    def forward(self, x: Tensor) -> Tensor:
        """(S, B, H, W, C) -> (S, B, H / 2, W / 2, C')."""
        y: Tensor = self.reduction(self.neighbours(x))
        return y

    def neighbours(self, x: Tensor) -> Tensor:
        """Normalised, 2x2 neighbours side by side: (S, B, H, W, C) -> (S, B, H / 2, W / 2, 4 C)."""
        pairs: Tensor = by_image(self.norm, x).unflatten(2, (-1, 2)).unflatten(4, (-1, 2))
        return pairs.transpose(3, 4).flatten(-3)

    def level(self, streams: Tensor) -> Level:
        """The halved maps of streams; the linear is left to the decoder unless it trains."""
        return Level.after(self.reduction, self.neighbours(streams))


class TokenStage(nn.Module):
    """What halves the map (nothing in the first stage), and blocks."""

    def __init__(self, stage: Any) -> None:
        super().__init__()
        halved = isinstance(stage.downsample, nn.Sequential)
        self.downsample = Halving(*stage.downsample) if halved else nn.Identity()
        self.blocks = nn.ModuleList(map(MlpBlock, stage.blocks))


class StagedConvNeXt(StagedNet):
    """Stem and four stages; what timm has behind them is left out."""

    def __init__(self, network: ConvNeXt) -> None:
        super().__init__()
        self.patch_embed = network.stem
        self.layers = nn.ModuleList(map(TokenStage, network.stages))
        self.feature_info = [dict(level) for level in network.feature_info]


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
            halved = following.downsample(shared[None])
            own = isinstance(stage.blocks[-1], ConvTaskBlock)
            if self.merged:
                pyramid.append(following.downsample.level(streams) if own else Level(halved))
            else:
                pyramid.append(Level(streams))
            x = halved[0]
        return pyramid


class ConvNeXtEnsemble(TaskEnsemble, MultiTaskConvNeXt):
    """The same with a stream for each task from the image on."""
