"""Who decides ranks: the seam between the training loop and a rank policy."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Protocol

import torch
from torch import Tensor
from torch.optim import Optimizer

from faar_ray.adapters import LowRankFactors
from faar_ray.records import RankRecord


class RankPolicy(Protocol):
    """Called by `fit` in this order: `draw`, (forward, backward), `observe`, ..., at the epoch's end `end_epoch`."""

    def sample_mask(self, epoch: int, step: int) -> None:
        """Set the prefix mask of every adapter for this optimizer step (global, 0-based)."""

    def observe(self) -> None:
        """Take note of this step's gradients, unscaled and not yet clipped."""

    def state_for_agreement(self) -> Tensor:
        """What decides, as one vector: equal on all workers, or they would shrink differently."""

    def end_epoch(self, epoch: int, optimizer: Optimizer | None) -> list[RankRecord]:
        """Shrink, lift all masks, and say what was decided: one record per adapter."""

    def state_dict(self) -> dict[str, Any]:
        """Everything but the ranks that a resumed run needs."""

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Undo `state_dict`, after the adapters have their ranks."""


class FixedRanks:
    """No masks, no shrinking: ranks stay as they start."""

    def __init__(self, adapters: Sequence[LowRankFactors]) -> None:
        self.adapters = list(adapters)

    def sample_mask(self, epoch: int, step: int) -> None:
        """Nothing to draw."""

    def observe(self) -> None:
        """Nothing to note."""

    def state_for_agreement(self) -> Tensor:
        """Ranks are fixed."""
        return torch.zeros(1)

    def end_epoch(self, epoch: int, optimizer: Optimizer | None) -> list[RankRecord]:
        """One record per adapter, with no score and nothing decided."""
        return [
            record(adapter, epoch, adapter.rank, "adapter", 1.0, 1.0, (0.0,) * adapter.rank, adapter.rank)
            for adapter in self.adapters
        ]

    def state_dict(self) -> dict[str, Any]:
        """Empty."""
        return {}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Nothing to load."""


def record(
    adapter: LowRankFactors,
    epoch: int,
    rank_before: int,
    scope: str,
    rho: float,
    coverage: float,
    importance: tuple[float, ...],
    unobserved: int,
) -> RankRecord:
    """The row of the rank trace for an adapter as it is now."""
    site = adapter.site
    return RankRecord(
        epoch=epoch, stage=site.stage, block=site.block, layer=site.layer, task=site.task,
        rank_before=rank_before, rank=adapter.rank, scope=scope, rho=rho, coverage=coverage,
        importance=importance, unobserved=unobserved, params=adapter.parameter_count(),
    )  # fmt: skip
