"""The tasks' tokens before the patch tokens of a backbone (VPT-shallow), of which the Clock Net makes frequencies.

Axes: T tasks, B batch, C channels.
"""

from __future__ import annotations

from collections.abc import Sequence
from itertools import pairwise
from typing import Any

import torch
from torch import Tensor, nn

from faar_ray.seeding import seeded


class TaskTokens(nn.Module):
    """p_t, one per task, as long as the patch tokens of the first stage.

    Args:
        tasks: how many.
        widths: channels of the stages.
        lifted: whether p <- U p between stages, U one linear each without bias.
        seed: of inits.
    """

    def __init__(self, tasks: int, widths: Sequence[int], *, lifted: bool, seed: int) -> None:
        super().__init__()
        with seeded(seed, "task tokens"):
            self.tokens_TC = nn.Parameter(nn.init.trunc_normal_(torch.empty(tasks, widths[0])))
            steps = pairwise(widths) if lifted else ()
            self.lifts = nn.ModuleList(nn.Linear(here, after, bias=False) for here, after in steps)
            for lift in self.lifts:
                weight: Any = lift.weight
                nn.init.trunc_normal_(weight, std=0.02)
        self._cached: Tensor | None = None
        """In place of the parameter within `cached_kernels`: a leaf whose gradient the parameter gets at its end."""

    def first(self, batch: int) -> Tensor:
        """(B, T, C)."""
        tokens_TC = self.tokens_TC if self._cached is None else self._cached
        return tokens_TC.expand(batch, -1, -1)

    def lifted(self, tokens_BTC: Tensor, stage: int) -> Tensor:
        """U p at a stage's end, (B, T, 2C)."""
        out: Tensor = self.lifts[stage](tokens_BTC)
        return out
