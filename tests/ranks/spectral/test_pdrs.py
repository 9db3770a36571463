"""PDRS in singular components, and masks in a share of the steps."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torch.optim import AdamW

from faar_ray.adapters import LoRA, LowRankFactors, Site
from faar_ray.config.trial import TrialConfig
from faar_ray.ranks import PDRS, build_policy
from faar_ray.seeding import private

RANK, INPUTS, OUTPUTS, ADAPTERS, BATCHES = 6, 12, 9, 3, 5


def adapters() -> list[LowRankFactors]:
    torch.manual_seed(0)
    made: list[LowRankFactors] = []
    for i in range(ADAPTERS):
        adapter = LoRA(torch.randn(OUTPUTS, INPUTS), RANK, 1.0).double()
        nn.init.normal_(adapter.B_RO)
        adapter.site = Site(i, 0, "fc1", "shared")
        made.append(adapter)
    return made


def policy_of(made: Sequence[LowRankFactors], **pdrs: Any) -> PDRS:
    keys = {"method": "pdrs_lora", "optim.epochs": 4, "spectral.score_batches": BATCHES}
    policy = build_policy(TrialConfig.resolve({}, **keys, **{f"pdrs.{k}": v for k, v in pdrs.items()}), made)
    assert isinstance(policy, PDRS)
    policy.gradient_pass = lambda epoch, batches: passes(made, epoch, batches)
    return policy


def changes_of(batch: int) -> list[Tensor]:
    """dL/dM of each adapter in a batch."""
    generator = torch.Generator().manual_seed(batch)
    scale = torch.logspace(0, -2, INPUTS, dtype=torch.float64)
    return [torch.randn(OUTPUTS, INPUTS, generator=generator, dtype=torch.float64) * scale for _ in range(ADAPTERS)]


def passes(made: Sequence[LowRankFactors], epoch: int, batches: int) -> Iterator[None]:
    for batch in range(batches):
        for adapter, G_OI in zip(made, changes_of(batch), strict=True):
            adapter.zero_grad()
            A_RI, B_RO = adapter.masked_factors()
            (G_OI * (B_RO.mT @ A_RI)).sum().backward()
        yield


def train(policy: PDRS, made: Sequence[LowRankFactors], steps: int) -> None:
    for step in range(steps):
        policy.sample_mask(0, step)
        next(passes(made, 0, 1))
        policy.observe()


def test_scores_after_the_rotation_are_those_of_pdrs_measured_in_its_components() -> None:
    """By the adapters' own formula and autograd, in the state that the rotation leaves; nothing is cut at rho 1."""
    made = adapters()
    policy = policy_of(made, basis="spectral", rho_shared=1.0)
    train(policy, made, 4)
    change = [(a.B_RO.mT @ a.A_RI).detach() for a in made]
    rows = policy.end_epoch(0, None)
    expected = [torch.zeros(RANK, dtype=torch.float64) for _ in made]
    for _ in passes(made, 0, BATCHES):
        for i, adapter in enumerate(made):
            expected[i] += adapter.importance() / BATCHES
    for row, scores_R, adapter, before in zip(rows, expected, made, change, strict=True):
        assert row.importance == pytest.approx(sorted(scores_R.tolist(), reverse=True), rel=1e-6)
        torch.testing.assert_close(adapter.B_RO.mT @ adapter.A_RI, before, rtol=1e-10, atol=1e-10)
        assert (row.rank, row.rho, row.unobserved) == (RANK, 1.0, 0)


def test_coverage_decides_on_these_scores_as_it_does_on_raw_ones() -> None:
    made = adapters()
    policy = policy_of(made, basis="spectral", rho_shared=0.8)
    train(policy, made, 4)
    rows = policy.end_epoch(0, AdamW([p for a in made for p in a.factors]))
    for row in rows:
        cumulative = torch.tensor(row.importance, dtype=torch.float64).cumsum(0)
        assert row.rank == int((cumulative / cumulative[-1] < 0.8).sum()) + 1
        assert row.coverage == pytest.approx(float(cumulative[row.rank - 1] / cumulative[-1]))
    assert any(row.rank < RANK for row in rows)


def test_of_a_change_with_few_directions_the_spectral_basis_keeps_few_components_and_the_raw_one_all() -> None:
    """The raw basis spreads two directions over all six components."""
    ranks = {}
    for basis in ("raw", "spectral"):
        made = adapters()
        for adapter in made:
            with torch.no_grad():
                adapter.B_RO.copy_(torch.randn(RANK, 2, dtype=torch.float64) @ adapter.B_RO[:2])
        policy = policy_of(made, basis=basis, rho_shared=0.9, mask_share=0.0)
        train(policy, made, 20)
        ranks[basis] = [row.rank for row in policy.end_epoch(0, None)]
    assert max(ranks["spectral"]) == 2
    assert min(ranks["raw"]) > 2


def test_the_moving_average_begins_anew_after_a_rotation_and_is_logged_where_nothing_is_decided() -> None:
    made = adapters()
    policy, plain = policy_of(made, basis="spectral", start_epoch=1), policy_of(made, start_epoch=1)
    for one in (policy, plain):
        train(one, made, 3)
    assert policy.end_epoch(0, None) == plain.end_epoch(0, None)  # before the first decision: as in the raw basis
    assert all(importance.count_R.any() for importance in policy.importance)
    rows = policy.end_epoch(1, None)
    for importance, row in zip(policy.importance, rows, strict=True):
        assert importance.ema_R.shape == (row.rank,)
        assert not importance.ema_R.any()
        assert not importance.count_R.any()
    restored = policy_of(made, basis="spectral", start_epoch=1)
    restored.load_state_dict(policy.state_dict())
    assert not restored.state_for_agreement().any()


def test_a_change_that_is_still_zero_is_no_evidence() -> None:
    made = adapters()
    with torch.no_grad():
        made[0].B_RO.zero_()
    rows = policy_of(made, basis="spectral", rho_shared=0.5).end_epoch(0, None)
    assert (rows[0].rank, rows[0].unobserved) == (RANK, RANK)
    assert rows[1].rank < RANK


def prefixes(policy: PDRS, steps: int) -> list[list[int | None]]:
    drawn = []
    for step in range(steps):
        policy.sample_mask(0, step)
        drawn.append([adapter.prefix_length for adapter in policy.adapters])
    return drawn


def test_with_a_mask_share_of_one_masks_are_those_of_before() -> None:
    expected = []
    for step in range(50):
        uniform = torch.rand(ADAPTERS, generator=private(0, "prefix", step), dtype=torch.float64)
        expected.append([1 + int(u * RANK) for u in uniform.tolist()])
    assert prefixes(policy_of(adapters()), 50) == expected


@pytest.mark.parametrize("share", [0.0, 0.25, 0.8])
def test_a_mask_share_leaves_out_whole_steps_and_no_other_mask_moves(share: float) -> None:
    masked, all_masked = prefixes(policy_of(adapters(), mask_share=share), 2000), prefixes(policy_of(adapters()), 2000)
    full = [RANK] * ADAPTERS
    assert all(ours in (theirs, full) for ours, theirs in zip(masked, all_masked, strict=True))
    free = sum(ours == full for ours in masked) / 2000
    assert free == pytest.approx(1 - share + share / RANK**ADAPTERS, abs=0.03)
    assert masked == prefixes(policy_of(adapters(), mask_share=share), 2000)
