"""The Clock Net: bounded, evenly spread at the start, learnable."""

from __future__ import annotations

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from faar_ray.adapters import ClockNet
from faar_ray.adapters.sinewich.task_tokens import TaskTokens
from faar_ray.config.trial import SinewichConfig

TASKS = ("semseg", "normals", "depth")


def clock(**keys: object) -> ClockNet:
    return ClockNet(TASKS, SinewichConfig.model_validate(keys), seed=3)


def test_is_the_formula_written_out() -> None:
    """omega_t = s (tanh(W_q ReLU(p_t)) + c)."""
    net = clock(scale=7.0, offset=1.2).double()
    with torch.no_grad():
        net.tokens_TD.normal_()
    for t, omega in enumerate(net().tolist()):
        product = sum(max(0.0, p) * q for p, q in zip(net.tokens_TD[t].tolist(), net.query_D.tolist(), strict=True))
        assert omega == pytest.approx(7.0 * (torch.tanh(torch.tensor(product, dtype=torch.float64)).item() + 1.2))


@pytest.mark.parametrize("seed", range(4))
def test_starts_evenly_spread_whatever_the_seed(seed: int) -> None:
    net = ClockNet(TASKS, SinewichConfig(scale=30.0, offset=1.5), seed)
    torch.testing.assert_close(net().detach(), 30 * torch.tensor([1.5 - 2 / 3, 1.5, 1.5 + 2 / 3]), rtol=1e-4, atol=0)


def test_all_kinds_start_alike_and_learn_what_they_say() -> None:
    lcn, free, fixed = (clock(clock=kind) for kind in ("lcn", "free", "fixed"))
    torch.testing.assert_close(lcn(), free())
    torch.testing.assert_close(lcn().detach(), fixed())
    names = [sorted(name for name, _ in net.named_parameters()) for net in (lcn, free, fixed)]
    assert names == [["offset", "query_D", "scale", "tokens_TD"], ["frequency_T", "scale"], []]


@settings(max_examples=200, deadline=None)
@given(
    st.lists(st.floats(-1e6, 1e6, allow_nan=False), min_size=48, max_size=48),
    st.floats(0.1, 200),
    st.floats(-3, 3, allow_nan=False),
)
def test_is_bounded_for_any_token(values: list[float], scale: float, offset: float) -> None:
    net = clock(scale=scale, offset=offset).double()
    with torch.no_grad():
        net.tokens_TD.copy_(torch.tensor(values, dtype=torch.float64).view(3, 16))
    assert (net().abs() <= scale * (1 + abs(offset)) * (1 + 1e-6)).all()


def test_gradients_flow_to_scale_offset_query_and_tokens() -> None:
    net = clock().double()
    parameters = tuple(net.parameters())
    assert torch.autograd.gradcheck(lambda *_: net().sin().sum(), parameters)
    net().sum().backward()
    assert all(p.grad is not None and p.grad.abs().sum() > 0 for p in parameters)


@pytest.mark.parametrize("hidden", [None, 24])
@pytest.mark.parametrize("kind", ["lcn", "free"])
def test_of_tokens_in_the_backbone_it_starts_spread_too_and_reads_them_as_they_are(
    kind: str, hidden: int | None
) -> None:
    """omega_t = s (tanh(W_q ReLU(V p_t)) + c)."""
    tokens = TaskTokens(3, [12, 24], lifted=True, seed=0)
    config = SinewichConfig.model_validate({"scale": 30.0, "clock": kind, "clock_hidden": hidden})
    net = ClockNet(TASKS, config, 3, tokens)
    torch.testing.assert_close(net().detach(), 30 * torch.tensor([1.5 - 2 / 3, 1.5, 1.5 + 2 / 3]), rtol=1e-4, atol=0)
    assert not any(p is tokens.tokens_TC for p in net.parameters())
    with torch.no_grad():
        tokens.tokens_TC.normal_()
    if kind == "lcn":
        V = torch.eye(12) if hidden is None else net.hidden_HD
        wanted = [30 * (((V @ p).clamp_min(0) * net.query_D).sum().tanh() + 1.5) for p in tokens.tokens_TC]
        torch.testing.assert_close(net(), torch.stack(wanted))


def test_one_task_has_the_offset_alone() -> None:
    assert ClockNet(("depth",), SinewichConfig(scale=10.0, offset=1.5), 0)().tolist() == pytest.approx([15.0])
