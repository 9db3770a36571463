"""The cut: never above the budget, no further component fits, the best per parameter first."""

from __future__ import annotations

from itertools import product

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from faar_ray.adapters import DoRA, LoRA, LowRankFactors, SineBase
from faar_ray.config.trial import TrialConfig
from faar_ray.models import adapter_list, build_model, parameters_by_part
from faar_ray.ranks.spectral.budget import Pooled, budget_range, keep_by_budget, params_at_rank


@st.composite
def pools(draw: st.DrawFn) -> list[Pooled]:
    """Adapters whose components cost the same, or more and more (a core)."""
    adapters = []
    for _ in range(draw(st.integers(1, 4))):
        scores = sorted(draw(st.lists(st.sampled_from([0.0, 0.5, 1.0, 2.0, 7.0, 40.0]), min_size=1, max_size=5)))[::-1]
        cost, core, rest = draw(st.integers(1, 9)), draw(st.integers(0, 2)), draw(st.integers(0, 3))
        adapters.append(Pooled(tuple(scores), tuple(rest + cost * r + core * r**2 for r in range(1, len(scores) + 1))))
    return adapters


def spent(pool: list[Pooled], ranks: list[int]) -> int:
    return sum(one.params_at_rank[rank - 1] for one, rank in zip(pool, ranks, strict=True))


@given(pools(), st.integers(0, 120), st.integers(1, 3))
def test_the_budget_holds_and_no_further_component_fits(pool: list[Pooled], budget: int, floor: int) -> None:
    ranks = keep_by_budget(pool, budget, floor=floor)
    floors = [min(floor, len(one.scores)) for one in pool]
    assert all(low <= rank <= len(one.scores) for low, rank, one in zip(floors, ranks, pool, strict=True))
    if spent(pool, floors) > budget:
        assert ranks == floors
        return
    assert spent(pool, ranks) <= budget
    for a, one in enumerate(pool):
        if ranks[a] < len(one.scores):
            assert spent(pool, [*ranks[:a], ranks[a] + 1, *ranks[a + 1 :]]) > budget


@given(pools(), st.integers(0, 120))
def test_it_is_the_list_of_components_by_score_per_parameter_taken_while_they_fit(
    pool: list[Pooled], budget: int
) -> None:
    """The rule as it is stated, component by component, without the shortcut of ranks."""
    kept = {(a, 0) for a in range(len(pool))}
    total = spent(pool, [1] * len(pool))
    costs = {
        (a, k): one.params_at_rank[k] - one.params_at_rank[k - 1]
        for a, one in enumerate(pool)
        for k in range(1, len(one.scores))
    }
    for a, k in sorted(costs, key=lambda of: (-pool[of[0]].scores[of[1]] / costs[of], of)):
        if total + costs[a, k] <= budget:
            kept.add((a, k))
            total += costs[a, k]
    ranks = keep_by_budget(pool, budget)
    assert kept == {(a, k) for a, rank in enumerate(ranks) for k in range(rank)}


def test_where_components_cost_the_same_no_other_choice_of_this_size_holds_more_score() -> None:
    generator = torch.Generator().manual_seed(0)
    drawn = [torch.rand(3, generator=generator).sort(descending=True).values.tolist() for _ in range(3)]
    pool = [Pooled(tuple(scores), (10, 20, 30)) for scores in drawn]
    for budget in range(30, 91, 10):
        best = max(
            (sum(sum(one.scores[:r]) for one, r in zip(pool, ranks, strict=True)), ranks)
            for ranks in product(range(1, 4), repeat=3)
            if spent(pool, [*ranks]) <= budget
        )
        assert tuple(keep_by_budget(pool, budget)) == best[1]


@pytest.mark.parametrize("kind", ["lora", "dora", "sine", "sine of 3x3"])
def test_sizes_by_rank_are_those_that_a_cut_leaves(kind: str) -> None:
    weight_OI = torch.randn(7, 9)
    made: LowRankFactors = SineBase(weight_OI, 4, 3 if kind == "sine of 3x3" else 1)
    if kind in ("lora", "dora"):
        made = {"lora": LoRA, "dora": DoRA}[kind](weight_OI, 4, 1.0)
    sizes = params_at_rank(made)
    for rank in (4, 3, 2, 1):
        made.keep(torch.arange(rank))
        assert made.parameter_count() == sizes[rank - 1]


@pytest.mark.parametrize("method", ["dora", "sinewich_1x1"])
def test_the_range_of_budgets_counts_what_the_metric_counts(method: str) -> None:
    config = TrialConfig.resolve({"method": method, "backbone": {"pretrained": False}, "ranks": {"init_rank": 4}})
    config = config.model_copy(update={"spectral": config.spectral.model_copy(update={"floor": 2})})
    model = build_model(config)
    sizes = budget_range(config, adapter_list(model))
    parts = parameters_by_part(model)
    assert sizes.full == parts["adapters"] + parts["magnitudes"]
    for adapter in adapter_list(model):
        adapter.keep(torch.arange(2))
    parts = parameters_by_part(model)
    assert sizes.smallest == parts["adapters"] + parts["magnitudes"]
    assert sizes.parameters(0.5) == int(0.5 * sizes.full)
    assert sizes.parameters(None) == sizes.parameters(1) == sizes.full
    assert sizes.fault(sizes.smallest) == ""
    assert f"must be at least {sizes.smallest:,} of {sizes.full:,}" in sizes.fault(sizes.smallest - 1)
    assert "got 0.001 = " in sizes.fault(0.001)
