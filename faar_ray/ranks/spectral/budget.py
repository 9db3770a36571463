"""Which components fit a budget of parameters: one pool over all adapters. Pure functions."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

from faar_ray.adapters import ClockNet, LowRankFactors
from faar_ray.config.trial import TrialConfig


@dataclass(frozen=True, slots=True)
class Pooled:
    """One adapter in the pool."""

    scores: tuple[float, ...]
    """Of its components, descending."""
    params_at_rank: tuple[int, ...]
    """Its parameters at rank 1, 2, ..., as many as it has components."""


def keep_by_budget(adapters: Sequence[Pooled], budget: int, *, floor: int = 1) -> list[int]:
    """The rank of each adapter: the `floor` best components of each, then all others by score per parameter.

    A component that does not fit any more is passed over, so no further one of any adapter would fit. Ties go to the
    adapter that comes first. Within an adapter the best components are kept: a component costs no less than the one
    before it.

    Args:
        adapters: in the order of the rank trace.
        budget: parameters of all adapters together; what the floors take is spent in any case.
        floor: components every adapter keeps at least, as far as it has them.
    """
    ranks = [min(floor, len(one.scores)) for one in adapters]
    spent = sum(one.params_at_rank[rank - 1] for one, rank in zip(adapters, ranks, strict=True))
    candidates = [
        (one.scores[k] / _cost(one, k), -a, -k)
        for a, one in enumerate(adapters)
        for k in range(ranks[a], len(one.scores))
    ]
    for _, a, k in sorted(candidates, reverse=True):
        cost = _cost(adapters[-a], -k)
        if spent + cost <= budget:
            ranks[-a] += 1
            spent += cost
    return ranks


def _cost(adapter: Pooled, k: int) -> int:
    """Parameters of component k beside those before it."""
    return adapter.params_at_rank[k] - (adapter.params_at_rank[k - 1] if k else 0)


def params_at_rank(adapter: LowRankFactors) -> tuple[int, ...]:
    """Trainable parameters of an adapter at rank 1 up to its rank."""
    whole, per_rank = adapter.parameter_count(), {name: len(axes) for name, axes in adapter.component_axes().items()}
    cells = [(getattr(adapter, name).numel() // adapter.rank**axes, axes) for name, axes in per_rank.items()]
    rest = whole - sum(numel * adapter.rank**axes for numel, axes in cells)
    return tuple(rest + sum(numel * r**axes for numel, axes in cells) for r in range(1, adapter.rank + 1))


def fixed_parameters(config: TrialConfig) -> int:
    """What `params/adapters` counts beside the adapters: the clock's."""
    if not config.has_sine_bases:
        return 0
    clock = ClockNet(config.data.tasks, config.sinewich, config.seed)
    return sum(p.numel() for p in clock.parameters() if p.requires_grad)


@dataclass(frozen=True, slots=True)
class BudgetRange:
    """What `ranks.budget` can be, in adapter parameters (`params/adapters`)."""

    smallest: int
    """Every adapter at `spectral.floor`."""
    full: int
    """Every adapter at its initial rank."""

    def parameters(self, budget: float | None) -> int:
        """A budget in parameters: a share is one of `full`; null is all."""
        if budget is None:
            return self.full
        return int(budget * self.full) if budget <= 1 else int(budget)

    def fault(self, budget: float | None) -> str:
        """What is wrong with a budget that the floors alone exceed."""
        if self.parameters(budget) >= self.smallest:
            return ""
        share = math.ceil(1e4 * self.smallest / self.full) / 1e4
        got = f"{budget:g} = {self.parameters(budget):,}" if budget is not None and budget <= 1 else f"{budget:,}"
        return (
            f"ranks.budget: must be at least {self.smallest:,} of {self.full:,} adapter parameters (a share of "
            f"{share:g}), the size with every adapter at spectral.floor, got {got}"
        )


def budget_range(config: TrialConfig, adapters: Sequence[LowRankFactors]) -> BudgetRange:
    """Of a model's adapters at their initial ranks."""
    beside, floor = fixed_parameters(config), config.spectral.floor
    sizes = [params_at_rank(adapter) for adapter in adapters]
    smallest = sum(of_adapter[min(floor, len(of_adapter)) - 1] for of_adapter in sizes)
    return BudgetRange(beside + smallest, beside + sum(of_adapter[-1] for of_adapter in sizes))
