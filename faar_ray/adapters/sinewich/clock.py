"""The Clock Net: a frequency omega_t per task (Free Sinewich, equation 6).

Axes: T tasks, D a token's length.
"""

from __future__ import annotations

import math

import torch
from torch import Tensor, nn

from faar_ray.config.trial import SinewichConfig
from faar_ray.seeding import seeded


class ClockNet(nn.Module):
    """omega_t = s (tanh(W_q ReLU(p_t)) + c) with a learned token p_t per task: |omega_t| <= |s| (1 + |c|).

    `free` learns f_t in omega_t = s f_t in place of the network, `fixed` learns nothing; both start where the network
    starts, so that ablations are paired. Whatever the seed, tanh starts evenly spread: at -2/3, 0, 2/3 for three tasks.
    """

    def __init__(self, tasks: tuple[str, ...], config: SinewichConfig, seed: int) -> None:
        super().__init__()
        self.tasks = tasks
        self.kind = "fixed" if config.modulation == "none" else config.clock  # nothing reads omega: nothing to learn
        with seeded(seed, "clock"):
            query_D = torch.randn(config.tokens) * math.sqrt(2 / config.tokens)
        query_D[:2] = query_D[:2].abs() * torch.tensor([1.0, -1.0])
        tokens_TD = tokens_at(spread(len(tasks)).atanh(), query_D)
        scale, offset = torch.tensor(config.scale), torch.tensor(config.offset)
        if self.kind == "lcn":
            self.tokens_TD, self.query_D = nn.Parameter(tokens_TD), nn.Parameter(query_D)
            self.scale, self.offset = nn.Parameter(scale), nn.Parameter(offset)
            return
        frequency_T = torch.tanh(tokens_TD.relu() @ query_D) + offset
        if self.kind == "free":
            self.scale, self.frequency_T = nn.Parameter(scale), nn.Parameter(frequency_T)
        else:
            self.register_buffer("scale", scale)
            self.register_buffer("frequency_T", frequency_T)

    def forward(self) -> Tensor:
        """omega, (T,)."""
        if self.kind == "lcn":
            return self.scale * (torch.tanh(self.tokens_TD.relu() @ self.query_D) + self.offset)
        omega_T: Tensor = self.scale * self.frequency_T
        return omega_T


def spread(tasks: int) -> Tensor:
    """The middles of equal parts of (-1, 1), (T,)."""
    return (2 * torch.arange(tasks) + 1) / tasks - 1


def tokens_at(wanted_T: Tensor, query_D: Tensor) -> Tensor:
    """Tokens p_t >= 0 with W_q p_t as wanted, (T, D); W_q has both signs."""
    up_D, down_D = query_D.relu(), (-query_D).relu()
    against_T = 1 + wanted_T.neg().relu()
    towards_T = against_T + wanted_T
    return towards_T[:, None] * up_D / up_D.dot(up_D) + against_T[:, None] * down_D / down_D.dot(down_D)
