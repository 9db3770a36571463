"""Decoders: from a task's feature pyramid to its prediction."""

from collections.abc import Mapping, Sequence

from torch import nn

from faar_ray.config import DecoderConfig
from faar_ray.decoders.hrnet import HRNetHead
from faar_ray.seeding import seeded

__all__ = ["HRNetHead", "build_heads"]

WIDTH_AT_96 = 18


def build_heads(
    config: DecoderConfig, pyramid: Sequence[int], outputs: Mapping[str, int], *, embed_dim: int, seed: int
) -> nn.ModuleDict:
    """One head per task, its init drawn from a stream of its own (seed, task), so that configs share it.

    Args:
        config: kind and sizes.
        pyramid: channels of the four maps, finest first.
        outputs: task -> channels that its head puts out.
        embed_dim: of the backbone; the default width is in proportion to it.
        seed: of the trial.
    """
    width = config.width or max(1, round(WIDTH_AT_96 * embed_dim / 96))
    heads = {}
    for task, channels in outputs.items():
        with seeded(seed, "decoder", task):
            heads[task] = HRNetHead(pyramid, channels, width, config.expansion)
    return nn.ModuleDict(heads)
