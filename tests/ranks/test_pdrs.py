"""PDRS: masks, scores over time, and shrinking with the optimizer's memory."""

from __future__ import annotations

import math
from typing import Any

import pytest
import torch
from torch import Tensor

from faar_ray.adapters import DoRA, LoRA, LowRankFactors, Site
from faar_ray.config.presets import PRESETS
from faar_ray.config.trial import PdrsConfig, TrialConfig
from faar_ray.ranks import PDRS, Importance, ImportanceScores, keep_by_coverage, shrink


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


class Uniform(LoRA):
    """All components are equally important, but for noise."""

    def __init__(self, rank: int, noise: float) -> None:
        super().__init__(torch.zeros(rank, rank), rank, 1.0)
        self.site, self.noise, self.generator = Site(0, 0, "fc1", "shared"), noise, torch.Generator().manual_seed(3)

    def importance(self) -> Tensor:
        assert self.prefix_length is not None
        return 1 + self.noise * torch.rand(self.prefix_length, generator=self.generator)


def ranks_under_uniform_importance(
    config: PdrsConfig, epochs: int, *, rank: int = 64, steps: int = 156, noise: float = 0.0
) -> list[int]:
    """After each epoch; 156 steps are one of PASCAL-Context at the papers' batch size."""
    policy = PDRS([Uniform(rank, noise)], config, seed=0, epochs=epochs)
    ranks = []
    for epoch in range(epochs):
        for step in range(epoch * steps, (epoch + 1) * steps):
            policy.sample_mask(epoch, step)
            policy.observe()
        ranks.append(policy.end_epoch(epoch, None)[0].rank)
    return ranks


def test_equal_components_are_pruned_by_how_often_prefixes_reach_them_but_for_the_default() -> None:
    """Inclusion bias: of a start at 0 that is not corrected, and of zeros for inactive components."""
    ways: list[dict[str, Any]] = [{}, {"bias_correction": False}, {"update": "all"}]
    corrected, literal, zeros = (ranks_under_uniform_importance(PdrsConfig(**way), 10, noise=1.0) for way in ways)
    expected = 64
    for rank in corrected:
        expected = math.ceil(0.95 * expected)
        assert abs(rank - expected) <= 1
    assert (corrected[0], corrected[-1]) == (61, 41)
    assert literal[0] < 0.87 * 64
    assert literal[-1] in (35, 36, 37)
    assert zeros[0] < 0.8 * 64
    assert zeros[-1] in (7, 8, 9, 10)


RELEASE = PdrsConfig(**PRESETS["faar_release"]["pdrs"])


def test_the_released_code_never_drops_more_than_half_of_equal_components() -> None:
    """The caps that its own functions gave at rho 0.95: 52, 46, 41, 38, 36, 34, 33, 33, ..., not from 64 to 4."""
    caps = ranks_under_uniform_importance(RELEASE.model_copy(update={"rho_shared": 0.95}), 20)
    assert max(abs(ours - theirs) for ours, theirs in zip(caps, (52, 46, 41, 38, 36, 34, 33, 33), strict=False)) <= 2
    assert set(caps[8:]) == {33}
    without = ranks_under_uniform_importance(RELEASE.model_copy(update={"rho_shared": 0.95, "score_clamp": None}), 9)
    assert without[-1] < 20


def test_at_its_own_coverage_the_released_code_cuts_once_and_much_later_to_its_floor() -> None:
    """Below half of the initial rank no step scores: the ranks stand until the old scores have faded to the clamp's."""
    caps = ranks_under_uniform_importance(RELEASE, 14, rank=32, noise=0.5)
    assert set(caps[:8]) == {caps[0]}
    assert 5 <= caps[0] <= 7
    assert caps[-1] == RELEASE.floor == 2
    forgotten = ranks_under_uniform_importance(RELEASE.model_copy(update={"dropped": "forgotten"}), 3, rank=32)
    assert forgotten[-1] < caps[0]


def test_dropped_components_count_in_the_share_and_in_the_state_that_is_resumed() -> None:
    config = PdrsConfig(rho_shared=0.6, update="all", dropped="counted")
    of = adapters(1)
    policy = PDRS(of, config, seed=0, epochs=4)
    backward(of, 0)
    policy.observe()
    first = policy.end_epoch(0, None)[0]
    assert first.rank < 6
    assert first.extra == {"dropped": 0.0}
    again = PDRS(adapters(1), config, seed=0, epochs=4)
    shrink(again.adapters[0], torch.arange(first.rank))
    again.load_state_dict(policy.state_dict())
    kept, all_scores = torch.tensor(first.importance[: first.rank]), torch.tensor(first.importance)
    for resumed in (policy, again):
        (row,) = resumed.end_epoch(1, None)
        assert row.rank == first.rank  # nothing was scored between: the same share of all
        assert row.extra["dropped"] == pytest.approx(float(all_scores.sum() - kept.sum()), rel=1e-5)
        assert row.coverage == pytest.approx(float(kept.sum() / all_scores.sum()), rel=1e-5)


@pytest.mark.parametrize(("scores", "kept"), [([8.0, 1, 1], 2), ([3.0, 3, 3], 3), ([1.0, 0, 0], 2)])
def test_a_floor_may_hold_the_margin(scores: list[float], kept: int) -> None:
    evidence = ImportanceScores(torch.tensor(scores), torch.ones(3, dtype=torch.bool))
    (decision,) = keep_by_coverage([evidence], 0.5, floor=2, margin=1, floor_holds_margin=True)
    assert len(decision.index_K) == kept
    (added,) = keep_by_coverage([evidence], 0.5, floor=2, margin=1)
    assert len(added.index_K) == 3


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
