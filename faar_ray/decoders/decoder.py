"""All heads as one module, since XT-Cons lets a task see the maps of the others."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence

from torch import Tensor, nn

from faar_ray.config.trial import DecoderConfig
from faar_ray.decoders.hrnet import HRNetHead
from faar_ray.decoders.spectral import Size
from faar_ray.decoders.ts_pd import SpectralPyramid
from faar_ray.seeding import seeded

WIDTH_AT_96 = 18


class HiddenWeights(nn.Module):
    """What gives every head the weight of its hidden layer."""

    def weights(self) -> dict[str, Tensor]:
        """Each task's (O, I)."""
        raise NotImplementedError


class Decoder(nn.Module):
    """{task: pyramid} -> {task: prediction}; between each head's reductions and its hidden layer sits TS-PD, if any."""

    def __init__(
        self,
        heads: Mapping[str, HRNetHead],
        spectral: SpectralPyramid | None = None,
        hidden: HiddenWeights | None = None,
    ) -> None:
        super().__init__()
        self.heads = nn.ModuleDict(heads)
        self.spectral = spectral
        self.hidden = hidden

    def forward(self, pyramids: Mapping[str, Sequence[Tensor]], size: tuple[int, int]) -> dict[str, Tensor]:
        """{task: maps (B, C_i, H_i, W_i), finest first} -> {task: (B, N_task, *size)}."""
        return self.predict({task: self.head(task).reduce(pyramids[task]) for task in self.heads}, size)

    def head(self, task: str) -> HRNetHead:
        """A task's own head."""
        head = self.heads[task]
        assert isinstance(head, HRNetHead)
        return head

    def predict(self, reduced: Mapping[str, Sequence[Tensor]], size: tuple[int, int]) -> dict[str, Tensor]:
        """The same from maps that are reduced already."""
        maps = reduced if self.spectral is None else self.spectral(reduced)
        weights = {} if self.hidden is None else self.hidden.weights()
        return {task: self.head(task).predict(maps[task], size, weights.get(task)) for task in self.heads}


def build_decoder(
    config: DecoderConfig,
    pyramid: Sequence[int],
    outputs: Mapping[str, int],
    *,
    grids: Sequence[Size],
    embed_dim: int,
    seed: int,
    hidden: Callable[[int, int], HiddenWeights] | None = None,
) -> Decoder:
    """One head per task, its init drawn from a stream of its own (seed, task), so that configs share it.

    Args:
        config: kind and sizes.
        pyramid: channels of the four maps, finest first.
        outputs: task -> channels that its head puts out.
        grids: sizes of the four maps at the config's image size.
        embed_dim: of the backbone; the default width is in proportion to it.
        seed: of the trial.
        hidden: makes the hidden layer that all heads share, from its outputs and inputs; None gives each its own.
    """
    width = config.width or max(1, round(WIDTH_AT_96 * embed_dim / 96))
    heads = {}
    for task, channels in outputs.items():
        with seeded(seed, "decoder", task):
            heads[task] = HRNetHead(pyramid, channels, width, config.expansion, own_hidden=hidden is None)
    joined = sum(width * 2**i for i in range(len(pyramid)))
    shared = None if hidden is None else hidden(config.expansion * joined, joined)
    if config.kind == "hrnet":
        return Decoder(heads, hidden=shared)
    reduced = [width * 2**i for i in range(len(pyramid))]
    with seeded(seed, "decoder", "spectra"):
        return Decoder(heads, SpectralPyramid(list(outputs), reduced, grids, config), shared)
