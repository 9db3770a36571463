"""Linears whose frozen weight is adapted once (shared) or once per task.

The adapted weight is formed first, so a forward pass is one matrix product per weight, and merging is exact.
Axes: T tasks, S streams (1 or T), N tokens, I in, O out.
"""

from __future__ import annotations

from collections.abc import Mapping

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from faar_ray.adapters.low_rank import LowRankFactors


class AdaptedLinear(nn.Module):
    """y = W' x + b with one adapter; the bias stays outside the adapter."""

    def __init__(self, base: nn.Linear, adapter: LowRankFactors) -> None:
        super().__init__()
        self.base = base.requires_grad_(False)
        self.adapter = adapter

    def forward(self, x: Tensor) -> Tensor:
        """(..., I) -> (..., O)."""
        return F.linear(x, self.adapter.adapt(self.base.weight), self.base.bias)


class TaskLinears(nn.Module):
    """y_t = W'_t x_t + b: one frozen weight, one adapter per task."""

    def __init__(self, base: nn.Linear, adapters: Mapping[str, LowRankFactors]) -> None:
        super().__init__()
        self.base = base.requires_grad_(False)
        self.adapters = nn.ModuleDict(adapters)

    def forward(self, x: Tensor) -> Tensor:
        """(S, ..., I) -> (T, ..., O); S is 1 where all tasks still share a stream, else T."""
        weights = [adapter.adapt(self.base.weight) for adapter in self.adapters.values()]  # type: ignore[operator]
        weight_TIO = torch.stack(weights).transpose(1, 2)
        x_TNI = x.flatten(1, -2).expand(len(weights), -1, -1)
        y_TNO: Tensor = torch.bmm(x_TNI, weight_TIO)
        if self.base.bias is not None:
            y_TNO = y_TNO + self.base.bias
        return y_TNO.view(len(weights), *x.shape[1:-1], -1)
