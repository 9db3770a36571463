"""PDRS: masks, scores over time, and shrinking with the optimizer's memory."""

from __future__ import annotations

import math

import pytest
import torch

from faar_ray.adapters import DoRA, LoRA, LowRankFactors, Site
from faar_ray.config.trial import PdrsConfig, TrialConfig
from faar_ray.ranks import PDRS, Importance, keep_by_coverage, shrink


def adapters(count: int = 3, rank: int = 6) -> list[LowRankFactors]:
    torch.manual_seed(0)
    made: list[LowRankFactors] = []
    for i in range(count):
        adapter = DoRA(torch.randn(8, 5), rank, 2.0)
        adapter.site = Site(0, i, "fc1", "shared" if i % 2 == 0 else "depth")
        torch.nn.init.normal_(adapter.B_RO)
        made.append(adapter)
    return made


def backward(of: list[LowRankFactors], seed: int) -> None:
    generator = torch.Generator().manual_seed(seed)
    for adapter in of:
        adapter.zero_grad()
        target = torch.randn(8, 5, generator=generator)
        (adapter.adapt(torch.ones(8, 5)) - target).square().sum().backward()


def test_masks_are_uniform_prefixes_and_depend_on_seed_step_and_adapter_only() -> None:
    first, second = adapters(), adapters()
    a, b = (PDRS(x, PdrsConfig(), seed=7, epochs=4) for x in (first, second))
    torch.rand(123)  # the global state must not matter
    drawn = []
    for step in range(3000):
        a.sample_mask(0, step)
        b.sample_mask(0, step)
        assert [x.prefix_length for x in first] == [x.prefix_length for x in second]
        drawn.append([x.prefix_length for x in first])
    counts = torch.tensor(drawn).flatten().bincount(minlength=7)[1:].double() / (3 * 3000)
    assert (counts - 1 / 6).abs().max() < 0.015
    assert len({tuple(row) for row in drawn[:20]}) > 10


def test_free_epochs_have_no_mask_and_no_shrink() -> None:
    of = adapters()
    policy = PDRS(of, PdrsConfig(rho_shared=0.1, free_epochs=2), seed=0, epochs=4)
    policy.sample_mask(2, 50)
    assert [a.prefix_length for a in of] == [6, 6, 6]
    backward(of, 0)
    policy.observe()
    assert [(r.rank_before, r.rank, r.rho) for r in policy.end_epoch(2, None)] == [(6, 6, 1.0)] * 3
    assert max(r.rank for r in policy.end_epoch(1, None)) < 6


def test_no_shrink_before_start_epoch() -> None:
    of = adapters()
    policy = PDRS(of, PdrsConfig(rho_shared=0.1, start_epoch=1), seed=0, epochs=3)
    backward(of, 0)
    policy.observe()
    assert {r.rank for r in policy.end_epoch(0, None)} == {6}
    assert max(r.rank for r in policy.end_epoch(1, None)) < 6


def test_ema_moves_active_components_only_and_corrects_the_start() -> None:
    importance = Importance(3, beta=0.9)
    for scores in ([2.0, 4.0], [2.0], [2.0, 4.0]):
        importance.observe(torch.tensor(scores))
    result = importance.evidence()
    torch.testing.assert_close(result.scores_R, torch.tensor([2.0, 4.0, 0.0]))
    assert result.observed_R.tolist() == [True, True, False]
    torch.testing.assert_close(importance.ema_R[0].item(), 2 * (1 - 0.9**3))


@pytest.mark.parametrize("update", ["active", "all"])
def test_a_step_that_cannot_score_is_no_evidence(update: str) -> None:
    with_empty_steps, without = Importance(3, 0.9, update), Importance(3, 0.9, update)
    for scores in ([0.0, 0.0], [2.0, 4.0], [0.0, 0.0, 0.0], [1.0]):
        with_empty_steps.observe(torch.tensor(scores))
        if any(scores):
            without.observe(torch.tensor(scores))
    a, b = with_empty_steps.evidence(), without.evidence()
    assert torch.equal(a.scores_R, b.scores_R)
    assert torch.equal(a.observed_R, b.observed_R)


def test_a_component_whose_b_is_zero_gets_no_score_from_its_first_step() -> None:
    importance = Importance(3, beta=0.9)
    importance.observe(torch.tensor([2.0, 3.0, 0.0]))
    importance.observe(torch.tensor([2.0, 0.0]))  # a step without a gradient for it moves nothing
    result = importance.evidence()
    torch.testing.assert_close(result.scores_R, torch.tensor([2.0, 3.0, 0.0]))
    assert result.observed_R.tolist() == [True, True, False]


@pytest.mark.parametrize("scope", ["adapter", "pooled"])
@pytest.mark.parametrize("update", ["active", "all"])
def test_coverage_of_one_drops_nothing_however_few_steps_scored(scope: str, update: str) -> None:
    of = adapters(4)
    for adapter in of:
        torch.nn.init.zeros_(adapter.B_RO)
    raw = {"ranks": {"init_rank": 6}, "pdrs": {"scope": scope, "update": update, "rho_shared": 1.0}}
    policy = PDRS(of, TrialConfig.resolve(raw).pdrs, seed=0, epochs=3)
    optimizer = torch.optim.AdamW([p for a in of for p in a.parameters()], lr=0.01)
    for epoch in range(3):
        for step in range(3 * epoch, 3 * epoch + 3):
            policy.sample_mask(epoch, step)
            backward(of, step)
            policy.observe()
            optimizer.step()
        assert [(r.rank_before, r.rank, r.coverage) for r in policy.end_epoch(epoch, optimizer)] == [(6, 6, 1.0)] * 4


def test_uniform_importance_is_not_pruned_by_the_default_update() -> None:
    """Inclusion bias (METHODS, PDRS 3): zeros fed for inactive components make late ones look useless."""
    kept = {}
    for update in ("active", "all"):
        ranks, generator = [64], torch.Generator().manual_seed(3)
        importance = Importance(64, 0.98, update)
        for _ in range(8):
            for _ in range(500):
                b = int(torch.randint(1, ranks[-1] + 1, (1,), generator=generator))
                importance.observe(1 + 0.1 * torch.rand(b, generator=generator))
            index = keep_by_coverage([importance.evidence()], 0.95)[0].index_K
            importance.keep(index)
            ranks.append(len(index))
        kept[update] = ranks
    assert kept["active"][1] >= 0.93 * 64
    assert kept["all"][1] <= 0.85 * 64
    expected = 64
    for _ in range(8):
        expected = math.ceil(0.95 * expected)
    assert abs(kept["active"][-1] - expected) <= 3
    assert kept["all"][-1] < 20


def test_pooled_scope_keeps_shared_and_task_adapters_apart() -> None:
    of = adapters(4)
    policy = PDRS(of, PdrsConfig(scope="pooled", rho_shared=1.0, rho_task=0.2), seed=0, epochs=2)
    backward(of, 1)
    policy.observe()
    ranks = {r.task: [q.rank for q in policy.end_epoch(0, None) if q.task == r.task] for r in policy.end_epoch(0, None)}
    assert ranks["shared"] == [6, 6]
    assert sum(ranks["depth"]) < 12
    assert min(ranks["depth"]) >= 1


def staged(count: int, rank: int = 6) -> list[LowRankFactors]:
    of = adapters(count, rank)
    for stage, adapter in enumerate(of):
        adapter.site = Site(stage, 0, "fc1", "shared")
    return of


@pytest.mark.parametrize("scope", ["adapter", "pooled"])
def test_each_stage_may_have_a_coverage_of_its_own(scope: str) -> None:
    of = staged(4)
    rho = {"0": 0.05, "1": 0.05, "2": 1.0, "3": 0.5}
    config = TrialConfig.resolve({"ranks": {"init_rank": 6}, "pdrs": {"scope": scope, "rho_shared": rho}}).pdrs
    policy = PDRS(of, config, seed=0, epochs=2)
    backward(of, 1)
    policy.observe()
    records = policy.end_epoch(0, None)
    assert [r.rho for r in records] == [0.05, 0.05, 1.0, 0.5]
    assert [r.rank for r in records][:3] == [1, 1, 6]
    assert 1 <= records[3].rank < 6
    assert records[3].coverage >= 0.5


def test_the_trace_row_lets_anyone_recompute_k() -> None:
    of = adapters()
    policy = PDRS(of, PdrsConfig(rho_shared=0.7), seed=0, epochs=2)
    for step in range(30):
        policy.sample_mask(0, step)
        backward(of, step)
        policy.observe()
    for row in policy.end_epoch(0, None):
        seen = torch.tensor(row.importance[: row.rank_before - row.unobserved], dtype=torch.float64)
        c = seen.cumsum(0) / seen.sum()
        assert row.rank == int((c < row.rho).sum()) + 1 + row.unobserved
        assert row.coverage == pytest.approx(c[row.rank - row.unobserved - 1].item(), abs=1e-12)
        assert len(row.importance) == row.rank_before == 6


def test_one_step_after_a_shrink_equals_a_step_of_the_surviving_rows_and_moments() -> None:
    """Adam's moments must belong to the components that stay, in their new order."""
    torch.manual_seed(0)
    adapter = LoRA(torch.randn(8, 5), 6, 2.0)
    torch.nn.init.normal_(adapter.B_RO)
    optimizer = torch.optim.AdamW(adapter.parameters(), lr=0.1, weight_decay=0.01)
    target = torch.randn(8, 5)

    def step(factors: LowRankFactors, with_: torch.optim.Optimizer) -> None:
        with_.zero_grad()
        (factors.adapt(torch.zeros(8, 5)) - target).square().sum().backward()
        with_.step()

    for _ in range(5):
        step(adapter, optimizer)
    index = torch.tensor([4, 0, 3])
    reference = LoRA(torch.randn(8, 5), 3, 2.0)
    by_hand = torch.optim.AdamW(reference.parameters(), lr=0.1, weight_decay=0.01)
    for new, old in zip(reference.factors, adapter.factors, strict=True):
        new.data = old.detach()[index].clone()
        saved = optimizer.state[old]
        by_hand.state[new] = {
            "step": saved["step"].clone(),
            "exp_avg": saved["exp_avg"][index].clone(),
            "exp_avg_sq": saved["exp_avg_sq"][index].clone(),
        }
    optimizer.zero_grad()
    shrink(adapter, index, optimizer)
    step(adapter, optimizer)
    step(reference, by_hand)
    for ours, expected in zip(adapter.factors, reference.factors, strict=True):
        assert torch.equal(ours, expected)
    assert len(optimizer.state) == 2


def test_a_shrink_that_drops_only_useless_components_changes_no_output() -> None:
    adapter = LoRA(torch.randn(8, 5), 4, 2.0)
    torch.nn.init.normal_(adapter.B_RO)
    with torch.no_grad():
        adapter.B_RO[[0, 2]] = 0
    before = adapter.adapt(torch.ones(8, 5))
    shrink(adapter, torch.tensor([3, 1]))
    torch.testing.assert_close(adapter.adapt(torch.ones(8, 5)), before)
    assert (adapter.rank, adapter.prefix_length) == (2, 2)
