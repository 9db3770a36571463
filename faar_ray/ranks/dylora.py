"""`ranks.kind: dylora`: one training for every rank up to the initial one (DyLoRA, Valipour et al. 2023)."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch.optim import Optimizer

from faar_ray.adapters import LowRankFactors
from faar_ray.config.trial import DyloraConfig, TrialConfig
from faar_ray.ranks.policy import RankPolicy, record
from faar_ray.ranks.shrink import shrink
from faar_ray.records import RankRecord
from faar_ray.seeding import private


class DyLoRA(RankPolicy):
    """Draws one rank b per step for the whole model: the change is alpha / b B_:b A_:b (DyLoRA, algorithm 1).

    An adapter with fewer than b components takes all that it has. Draws are a function of (seed, step): they are the
    same on all workers and after a resume, without any state.
    """

    def __init__(self, adapters: Sequence[LowRankFactors], config: DyloraConfig, *, seed: int, epochs: int) -> None:
        super().__init__(adapters)
        self.config, self.seed, self.epochs = config, seed, epochs
        self.largest = max(adapter.rank for adapter in self.adapters)
        self.curve: dict[str, float] = {}

    def sample_mask(self, epoch: int, step: int) -> None:
        """b uniform in 1..R, R the largest rank of an adapter, from a private stream."""
        uniform = torch.rand(1, generator=private(self.seed, "dylora", step), dtype=torch.float64)
        self.at_rank(1 + int(float(uniform) * self.largest))
        if self.config.frozen:
            for adapter in self.adapters:
                adapter.train_only((adapter.prefix_length or adapter.rank) - 1)

    def at_rank(self, b: int) -> None:
        """Let the first b components of every adapter take part, scaled by alpha / b."""
        for adapter in self.adapters:
            own = min(b, adapter.rank)
            adapter.mask_prefix(own, gain=adapter.rank / own)  # adapters are scaled by alpha over their whole rank

    def end_epoch(self, epoch: int, optimizer: Optimizer | None) -> list[RankRecord]:
        """Let the chosen rank take part in what follows; at the end of the last epoch measure the curve, and cut."""
        chosen, is_last = self.config.rank or self.largest, epoch + 1 == self.epochs
        self.curve = self._measured() if is_last else {}
        self.at_rank(chosen)
        rows = []
        for adapter in self.adapters:
            before = adapter.rank
            if is_last:
                shrink(adapter, torch.arange(min(chosen, before)), optimizer)
            unscored = ((0.0,) * before, before)
            rows.append(record(adapter, epoch, before, "adapter", 1.0, 1.0, *unscored, {"evaluated_rank": chosen}))
        return rows

    def _measured(self) -> dict[str, float]:
        if not self.config.curve:
            return {}
        if self.evaluation is None:
            raise RuntimeError("a curve over ranks needs an evaluation: set `evaluation`")
        measured: dict[str, float] = {}
        for b in self.config.curve:
            self.at_rank(b)
            measured |= {f"rank_curve/{b}/{name}": value for name, value in self.evaluation().items()}
        return measured

    def metrics(self) -> dict[str, float]:
        """The curve over ranks, at the end of the last epoch."""
        return self.curve


def build_dylora(config: TrialConfig, adapters: Sequence[LowRankFactors]) -> DyLoRA:
    """`dylora`."""
    return DyLoRA(adapters, config.dylora, seed=config.seed, epochs=config.optim.epochs)
