"""Linears and hidden layers whose task weights come from a sine-modulated base.

Axes: T tasks, S streams in (1 or K), K streams out, B batch, L tokens, C channels, H W space, I in, O out.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Protocol

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from faar_ray.adapters.adapter import Site
from faar_ray.adapters.linear import AdaptedLinear
from faar_ray.adapters.sinewich.clock import ClockNet
from faar_ray.adapters.sinewich.sine_awb import SineBase, SineWeights
from faar_ray.config.trial import SinewichConfig
from faar_ray.decoders import HiddenWeights


class Grid(Protocol):
    """How tokens lie in space."""

    def image(self, x: Tensor) -> Tensor:
        """(..., L, C) -> (..., C, H, W)."""

    def tokens(self, x: Tensor) -> Tensor:
        """(..., C, H, W) -> (..., L, C)."""


class SineLinears(SineWeights):
    """y_t = phi(x_t) + M_t * x_t: a linear (with its shared LoRA, or frozen) and each task's own kernel beside it."""

    def __init__(
        self,
        phi: nn.Linear | AdaptedLinear,
        bases: Mapping[str, SineBase],
        clock: ClockNet,
        config: SinewichConfig,
        site: Site,
    ) -> None:
        super().__init__(bases, clock, config, site)
        self._phi = (phi,)  # in a tuple: the block holds it already

    def __len__(self) -> int:
        """How many tasks."""
        return len(self.clock.tasks)

    @property
    def phi(self) -> nn.Linear | AdaptedLinear:
        """What the task kernels add to."""
        return self._phi[0]

    @property
    def needs_grid(self) -> bool:
        """Whether kernels look at neighbouring tokens."""
        return self.config.conv_size > 1

    def forward(self, x: Tensor, grid: Grid | None = None) -> Tensor:
        """(S, ..., I) -> (T, ..., O); S is 1 or T. Kernels of 3x3 need the tokens' grid."""
        bias_O = self.weight_and_bias()[1]
        if not self.needs_grid:
            return linears(x, self.task_weights(), bias_O)
        if grid is None:
            raise TypeError("kernels of 3x3 need the tokens' grid")
        return grid.tokens(convolutions(grid.image(x), self.task_weights(), bias_O))

    def task_weights(self) -> Tensor:
        """phi's weight plus each task's kernel: (T, O, I), or (T, O, I, 3, 3) with phi's in the middle."""
        weight_OI, kernels = self.weight_and_bias()[0], self.kernels()
        return with_middle(kernels, weight_OI) if self.needs_grid else weight_OI + kernels[:, 0]

    def with_shared(self, shared: nn.Module, x: Tensor, grid: Grid | None = None) -> Tensor:
        """The shared linear's stream first, (S, ..., I) -> (1 + T, ..., O); S is 1 or 1 + T."""
        return torch.cat([shared(x[:1]), self(x if len(x) == 1 else x[1:], grid)])

    def weight_and_bias(self) -> tuple[Tensor, Tensor | None]:
        """Of phi, (O, I) and (O,)."""
        if isinstance(self.phi, nn.Linear):
            return self.phi.weight, self.phi.bias
        base = self.phi.base
        with torch.autocast(base.weight.device.type, enabled=False):
            return self.phi.adapter.adapt(base.weight), base.bias


class SineHidden(SineWeights, HiddenWeights):
    """The base of all heads' hidden layers (270 -> 1080 on Swin-T); each head adds its bias."""

    def weights(self) -> dict[str, Tensor]:
        """Each task's (O, I)."""
        return dict(zip(self.clock.tasks, self.kernels()[:, 0], strict=True))


def linears(x: Tensor, weight_TOI: Tensor, bias_O: Tensor | None) -> Tensor:
    """y_t = W_t x_t + b, (S, ..., I) -> (T, ..., O)."""
    streams = x.expand(len(weight_TOI), *x.shape[1:])
    return torch.stack([F.linear(x_t, W_OI, bias_O) for x_t, W_OI in zip(streams, weight_TOI, strict=True)])


def convolutions(x_SBIHW: Tensor, weight_TOI33: Tensor, bias_O: Tensor | None) -> Tensor:
    """y_t = W_t * x_t + b, (S, B, I, H, W) -> (T, B, O, H, W), zeros around the image."""
    streams = x_SBIHW.expand(len(weight_TOI33), *x_SBIHW.shape[1:])
    pairs = zip(streams, weight_TOI33, strict=True)
    return torch.stack([F.conv2d(x_t, W, bias_O, padding=W.shape[-1] // 2) for x_t, W in pairs])


def with_middle(kernels_TPOI: Tensor, weight_OI: Tensor) -> Tensor:
    """Kernels of 3x3 with a linear's weight added at their middle, (T, O, I, 3, 3)."""
    side = round(kernels_TPOI.shape[1] ** 0.5)
    padded_OI33 = F.pad(weight_OI[..., None, None], [side // 2] * 4)
    kernels: Tensor = kernels_TPOI.movedim(1, -1).unflatten(-1, (side, side))
    return kernels + padded_OI33
