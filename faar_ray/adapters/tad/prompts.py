"""The tokens of tasks, and what takes them from stage to stage.

Axes: T tasks, B batch, C channels.
"""

from __future__ import annotations

from collections.abc import Sequence
from itertools import pairwise
from typing import Any

import torch
from torch import Tensor, nn

from faar_ray.seeding import seeded


class TaskPrompts(nn.Module):
    """One token per task in the first stage; p <- U p between stages; a gate per stage (TADFormer)."""

    def __init__(self, tasks: int, widths: Sequence[int], seed: int) -> None:
        super().__init__()
        with seeded(seed, "prompts"):
            self.tokens_TC = nn.Parameter(nn.init.trunc_normal_(torch.empty(tasks, widths[0]), mean=1.0))
            self.lifts = nn.ModuleList(nn.Linear(here, after, bias=False) for here, after in pairwise(widths))
            for lift in self.lifts:
                weight: Any = lift.weight
                nn.init.trunc_normal_(weight, std=0.02)
        self.gates_S = nn.Parameter(torch.zeros(len(widths)))
        """g of each stage: a task's stream is sigmoid(g) of its skip and the rest of its own."""

    def first(self, batch: int) -> Tensor:
        """(B, T, C)."""
        return self.tokens_TC.expand(batch, -1, -1)

    def lifted(self, prompts_BTC: Tensor, stage: int) -> Tensor:
        """U p at a stage's end, (B, T, 2C)."""
        out: Tensor = self.lifts[stage](prompts_BTC)
        return out
