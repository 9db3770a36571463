"""The Clock Net: a frequency omega_t per task (Free Sinewich, equation 6).

Axes: T tasks, D a token's length, H units of a hidden layer.
"""

from __future__ import annotations

import math

import torch
from torch import Tensor, nn

from faar_ray.adapters.sinewich.task_tokens import TaskTokens
from faar_ray.config.trial import SinewichConfig
from faar_ray.seeding import seeded


class ClockNet(nn.Module):
    """omega_t = s (tanh(W_q ReLU(p_t)) + c) with a learned token p_t per task: |omega_t| <= |s| (1 + |c|).

    With `clock_hidden` ReLU(V p_t) stands in place of ReLU(p_t). `free` learns f_t in omega_t = s f_t in place of the
    network, `fixed` learns nothing; both start where the network starts, so that ablations are paired. Whatever the
    seed, tanh starts evenly spread: at -2/3, 0, 2/3 for three tasks.

    Args:
        tasks: their names.
        config: kind, first values, lengths.
        seed: of inits.
        in_trunk: tokens that the backbone's attention sees too; None: the clock has its own.
    """

    def __init__(
        self, tasks: tuple[str, ...], config: SinewichConfig, seed: int, in_trunk: TaskTokens | None = None
    ) -> None:
        super().__init__()
        self.tasks = tasks
        self.kind = "fixed" if config.modulation == "none" else config.clock  # nothing reads omega: nothing to learn
        self._of_model = (in_trunk,)  # in a tuple: the model holds their parameters
        with seeded(seed, "clock"):
            tokens_TD, hidden_HD, query = _first_values(len(tasks), config, in_trunk)
        scale, offset = torch.tensor(config.scale), torch.tensor(config.offset)
        if self.kind == "lcn":
            self.tokens_TD = None if in_trunk is not None else nn.Parameter(tokens_TD)
            self.hidden_HD = None if hidden_HD is None else nn.Parameter(hidden_HD)
            self.query_D = nn.Parameter(query)
            self.scale, self.offset = nn.Parameter(scale), nn.Parameter(offset)
            return
        frequency_T = torch.tanh(_rectified(tokens_TD, hidden_HD) @ query) + offset
        if self.kind == "free":
            self.scale, self.frequency_T = nn.Parameter(scale), nn.Parameter(frequency_T)
        else:
            self.register_buffer("scale", scale)
            self.register_buffer("frequency_T", frequency_T)

    @property
    def in_trunk(self) -> TaskTokens | None:
        """Tokens that the backbone's attention sees too."""
        return self._of_model[0]

    def forward(self) -> Tensor:
        """omega, (T,)."""
        if self.kind == "lcn":
            tokens_TD = self.tokens_TD if self.in_trunk is None else self.in_trunk.tokens_TC
            assert tokens_TD is not None
            return self.scale * (torch.tanh(_rectified(tokens_TD, self.hidden_HD) @ self.query_D) + self.offset)
        omega_T: Tensor = self.scale * self.frequency_T
        return omega_T


def _rectified(tokens_TD: Tensor, hidden_HD: Tensor | None) -> Tensor:
    """ReLU(p_t) or ReLU(V p_t)."""
    return (tokens_TD if hidden_HD is None else tokens_TD @ hidden_HD.t()).relu()


def _first_values(
    tasks: int, config: SinewichConfig, in_trunk: TaskTokens | None
) -> tuple[Tensor, Tensor | None, Tensor]:
    """Tokens, V and W_q with W_q ReLU(.) evenly spread under tanh."""
    wanted_T = spread(tasks).atanh()
    if in_trunk is None and config.clock_hidden is None:
        query_D = torch.randn(config.tokens) * math.sqrt(2 / config.tokens)
        query_D[:2] = query_D[:2].abs() * torch.tensor([1.0, -1.0])
        return tokens_at(wanted_T, query_D), None, query_D

    tokens_TD = torch.randn(tasks, config.tokens) if in_trunk is None else in_trunk.tokens_TC.detach()
    width, hidden = tokens_TD.shape[1], config.clock_hidden
    hidden_HD = None if hidden is None else torch.randn(hidden, width) * math.sqrt(2 / width)
    query: Tensor = torch.linalg.pinv(_rectified(tokens_TD, hidden_HD)) @ wanted_T
    return tokens_TD, hidden_HD, query


def spread(tasks: int) -> Tensor:
    """The middles of equal parts of (-1, 1), (T,)."""
    return (2 * torch.arange(tasks) + 1) / tasks - 1


def tokens_at(wanted_T: Tensor, query_D: Tensor) -> Tensor:
    """Tokens p_t >= 0 with W_q p_t as wanted, (T, D); W_q has both signs."""
    up_D, down_D = query_D.relu(), (-query_D).relu()
    against_T = 1 + wanted_T.neg().relu()
    towards_T = against_T + wanted_T
    return towards_T[:, None] * up_D / up_D.dot(up_D) + against_T[:, None] * down_D / down_D.dot(down_D)
