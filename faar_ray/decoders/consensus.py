"""XT-Cons: what pulls a task's spectrum towards the mean spectrum of the others (FAAR).

Axes: T tasks, B batch, C channels, H W space, X columns of the half plane.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import ClassVar

import torch
from torch import Tensor, nn

from faar_ray.decoders.spectral import Size, radius_on


class Consensus(nn.Module):
    """Of one primary task at one resolution: the alphas of Delta = alpha M (F_avg - F_main), one per band.

    Both start at 0; their gradients do not.
    """

    def __init__(self, cutoff: float, plane: str = "frequencies") -> None:
        super().__init__()
        self.cutoff, self.plane = cutoff, plane
        self.alpha_low = nn.Parameter(torch.zeros(()))
        self.alpha_high = nn.Parameter(torch.zeros(()))

    def forward(self, size: Size) -> Tensor:
        """alpha_low M_low + alpha_high M_high for maps of this size, (H, X)."""
        low_HX = radius_on(self.plane, size, self.alpha_low.device) <= self.cutoff
        return torch.where(low_HX, self.alpha_low, self.alpha_high)

    @staticmethod
    def pulls(of_tasks: Sequence[Consensus | None], own: Tensor, average: Tensor, size: Size) -> Tensor:
        """Delta of every task, (T, B, C, H, X); 0 of one that is not primary."""
        none = own.real.new_zeros(size[0], size[1] // 2 + 1)
        strengths = [none if one is None else one(size) for one in of_tasks]
        return torch.stack(strengths)[:, None, None] * (average - own)


class AmplitudeConsensus(nn.Module):
    """Of one primary task at one resolution, as FAAR's released code has it; (.)^ are spectra with norm "ortho".

    Low band: |F| moves towards gamma |F_avg| by 0.5 sigmoid(alpha), and the phase stays. High band: gamma F_avg - F by
    0.3 sigmoid(alpha), on a ramp from 0 at radius 0.8 to 1 at 1. The alphas start at 0: by a quarter and by 0.15.
    """

    CAPS: ClassVar[tuple[float, float]] = (0.5, 0.3)
    RAMP: ClassVar[float] = 0.8
    LEAST: ClassVar[float] = 1e-6

    def __init__(self, cutoff: float, plane: str = "frequencies") -> None:
        super().__init__()
        self.cutoff, self.plane = cutoff, plane
        self.alpha_low = nn.Parameter(torch.zeros(()))
        self.alpha_high = nn.Parameter(torch.zeros(()))
        self.gamma_low = nn.Parameter(torch.ones(()))
        self.gamma_high = nn.Parameter(torch.ones(()))

    def forward(self, own: Tensor, average: Tensor, size: Size) -> Tensor:
        """Delta from spectra (B, C, H, X)."""
        radius_HX = radius_on(self.plane, size, own.device).to(own.real.dtype)
        low_HX = radius_HX <= self.cutoff
        ramp_HX = ((radius_HX - self.RAMP) / (1 - self.RAMP + 1e-6)).clamp(0, 1).where(~low_HX, 0.0)

        amplitude = own.abs()
        phase = own / (amplitude + self.LEAST * (size[0] * size[1]) ** 0.5)
        by = self.CAPS[0] * torch.sigmoid(self.alpha_low)
        low = phase * (amplitude + by * (self.gamma_low * average.abs() - amplitude)) - own
        high = self.CAPS[1] * torch.sigmoid(self.alpha_high) * (self.gamma_high * average - own)
        delta: Tensor = low_HX * low + ramp_HX * high
        return delta

    @staticmethod
    def pulls(of_tasks: Sequence[AmplitudeConsensus | None], own: Tensor, average: Tensor, size: Size) -> Tensor:
        """Delta of every task, (T, B, C, H, X); 0 of one that is not primary."""
        pairs = zip(of_tasks, own, average, strict=True)
        return torch.stack([torch.zeros_like(f) if one is None else one(f, mean, size) for one, f, mean in pairs])


CONSENSUS: dict[str, type[Consensus] | type[AmplitudeConsensus]] = {
    "difference": Consensus,
    "amplitude": AmplitudeConsensus,
}
