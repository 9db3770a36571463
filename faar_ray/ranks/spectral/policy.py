"""`ranks.kind: spectral`: all components train; at one epoch's end adapters are rotated and cut to a budget."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch.optim import Optimizer

from faar_ray.adapters import LowRankFactors
from faar_ray.config.trial import TrialConfig
from faar_ray.errors import ConfigError
from faar_ray.ranks.policy import RankPolicy, record
from faar_ray.ranks.shrink import shrink
from faar_ray.ranks.spectral.budget import Pooled, budget_range, fixed_parameters, keep_by_budget, params_at_rank
from faar_ray.ranks.spectral.rotate import rotate_all
from faar_ray.records import Extra, RankRecord


class SpectralRanks(RankPolicy):
    """Keeps all components until the end of `spectral.cut_epoch`, and again after it.

    It has no state: what it decides depends on the weights at that epoch's end, and on the config. So before the cut a
    trial is the same, bit for bit, as one of `ranks.kind: fixed`.
    """

    def __init__(self, adapters: Sequence[LowRankFactors], config: TrialConfig) -> None:
        super().__init__(adapters)
        self.spectral, self.cut_epoch = config.spectral, config.spectral.cut_after(config.optim.epochs)
        sizes = budget_range(config, self.adapters)
        if fault := sizes.fault(config.ranks.budget):
            raise ConfigError(fault)
        self.budget = sizes.parameters(config.ranks.budget)
        self.beside = fixed_parameters(config)

    def end_epoch(self, epoch: int, optimizer: Optimizer | None) -> list[RankRecord]:
        """Rotate and cut, at the end of the cut's epoch; else nothing."""
        if epoch != self.cut_epoch:
            return super().end_epoch(epoch, optimizer)

        components = rotate_all(self, self.spectral, epoch, optimizer)
        pool = [Pooled(of.scores(), params_at_rank(a)) for of, a in zip(components, self.adapters, strict=True)]
        ranks = keep_by_budget(pool, self.budget - self.beside, floor=self.spectral.floor)
        whole = sum(sum(one.scores) for one in pool)
        kept = sum(sum(one.scores[:rank]) for one, rank in zip(pool, ranks, strict=True))
        coverage = kept / whole if whole > 0 else 1.0
        return [
            self._cut(i, epoch, ranks[i], coverage, pool[i], tuple(components[i].singular_R.tolist()), optimizer)
            for i in range(len(ranks))
        ]

    def _cut(
        self,
        i: int,
        epoch: int,
        rank: int,
        coverage: float,
        pooled: Pooled,
        singular: tuple[float, ...],
        optimizer: Optimizer | None,
    ) -> RankRecord:
        adapter, before = self.adapters[i], self.adapters[i].rank
        shrink(adapter, torch.arange(rank), optimizer)
        extra: dict[str, Extra] = {
            "singular_values": singular,
            "params_at_rank": pooled.params_at_rank,
            "budget": self.budget - self.beside,
            "floor": self.spectral.floor,
        }
        return record(adapter, epoch, before, "pooled", 1.0, coverage, pooled.scores, 0, extra)


def build_spectral(config: TrialConfig, adapters: Sequence[LowRankFactors]) -> SpectralRanks:
    """`spectral`."""
    return SpectralRanks(adapters, config)
