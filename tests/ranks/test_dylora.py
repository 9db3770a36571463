"""DyLoRA: one rank per step for the whole model, its scale, and who gets a gradient."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from torch import nn

from faar_ray.adapters import AdaptedLinear, DoRA, LoRA, Site, prepared
from faar_ray.adapters.linear import adapted_plainly
from faar_ray.config.trial import DyloraConfig, TrialConfig
from faar_ray.ranks.dylora import DyLoRA


def adapters(kind: type[LoRA] = LoRA) -> list[LoRA]:
    torch.manual_seed(0)
    made = []
    for i, rank in enumerate((6, 3)):
        adapter = kind(torch.randn(8, 7, dtype=torch.float64), rank, 1.0)
        adapter.site = Site(0, i, "fc1", "shared")
        nn.init.normal_(adapter.B_RO)
        made.append(prepared(adapter.double(), TrialConfig.resolve({"method": "dylora"})))
    return made


def test_all_adapters_get_the_one_rank_that_seed_and_step_draw_uniformly() -> None:
    first, second = adapters(), adapters()
    a, b = (DyLoRA(of, DyloraConfig(), seed=7, epochs=1) for of in (first, second))
    drawn = []
    for step in range(1200):
        a.sample_mask(0, step)
        torch.rand(1)
        b.sample_mask(0, step)
        assert [x.prefix_length for x in first] == [x.prefix_length for x in second]
        drawn.append(first[0].prefix_length or 0)
        assert first[1].prefix_length == min(3, drawn[-1])
    assert min(torch.tensor(drawn).bincount(minlength=7)[1:].tolist()) > 150


@pytest.mark.parametrize("frozen", [True, False])
@pytest.mark.parametrize("kind", [LoRA, DoRA])
@pytest.mark.parametrize("b", [1, 4, 6])
def test_the_change_is_alpha_over_b_of_the_first_b_and_only_what_trains_has_a_gradient(
    kind: type[LoRA], b: int, frozen: bool
) -> None:
    """By plain slices: those before b detached where frozen, as the authors' code has it."""
    adapter = adapters(kind)[0]
    policy = DyLoRA([adapter], DyloraConfig(frozen=frozen), seed=0, epochs=1)
    for step in range(99):
        policy.sample_mask(0, step)
        if adapter.prefix_length == b:
            break
    assert adapter.prefix_length == b
    linear, x = AdaptedLinear(nn.Linear(7, 8).double(), adapter), torch.randn(5, 7, dtype=torch.float64)

    A, B = (torch.cat([f[: b - 1].detach() if frozen else f[: b - 1], f[b - 1 : b]]) for f in adapter.factors)
    weight = linear.base.weight + 16 / b * B.t() @ A
    if isinstance(adapter, DoRA):
        weight = adapter.m_O[:, None] * weight / weight.detach().norm(dim=1, keepdim=True)
    plain = x @ weight.t() + linear.base.bias
    torch.testing.assert_close(linear(x), plain)
    torch.testing.assert_close(adapted_plainly(linear.base, [adapter], x[None])[0], plain)
    expected = torch.autograd.grad(plain.sin().sum(), adapter.factors)
    linear(x).sin().sum().backward()
    for p, gradient in zip(adapter.factors, expected, strict=True):
        assert p.grad is not None
        torch.testing.assert_close(p.grad, gradient)
        trained = {b - 1} if frozen else set(range(b))
        assert {i for i, row in enumerate(p.grad) if bool(row.any())} == trained


def test_an_adapter_that_is_cut_is_what_it_was_under_its_mask() -> None:
    for adapter in adapters():
        weight = torch.randn(8, 7, dtype=torch.float64)
        DyLoRA([adapter], DyloraConfig(), seed=0, epochs=1).at_rank(2)
        masked = adapter.adapt(weight)
        adapter.keep(torch.arange(2))
        assert adapter.scale == 8
        torch.testing.assert_close(adapter.adapt(weight), masked)


@pytest.mark.parametrize(
    ("dotted", "message"),
    [
        ({"adapter.kind": "sine_awb"}, r"ranks\.kind: must not be dylora .* a base has a matrix between"),
        ({"placement.task_path": "prompted"}, r"dylora\.frozen: must be false .* the filter of a component"),
        ({"dylora.rank": 65}, r"dylora\.rank: must be at most the largest initial rank 64, got 65"),
        ({"ranks.init_rank": 4, "dylora.curve": [2, 8]}, r"dylora\.curve: must be at most .* 4, got 8"),
    ],
)
def test_what_does_not_go_with_it_is_refused_with_the_reason(dotted: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        TrialConfig.resolve({"method": "dylora"}, **dotted)
