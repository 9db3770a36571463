"""Adapters and the optimizer's memory under a rotation, against gradients that autograd takes in the new components."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torch.optim import SGD, AdamW

from faar_ray.adapters import DoRA, LoRA, LowRankFactors, SineBase
from faar_ray.ranks.spectral.rotate import factors_of, find_rotation, rotate
from faar_ray.ranks.spectral.rotation import Rotation

RANK, INPUTS, OUTPUTS, STEPS = 4, 10, 7, 6
BETA = 0.9
GATES = torch.randn(12, RANK, RANK, generator=torch.Generator().manual_seed(5), dtype=torch.float64)


def adapter_of(kind: str) -> LowRankFactors:
    torch.manual_seed(0)
    weight_OI = torch.randn(OUTPUTS, INPUTS, dtype=torch.float64)
    made: LowRankFactors = SineBase(weight_OI, RANK, 1)
    if kind != "sine":
        made = {"lora": LoRA, "dora": DoRA}[kind](weight_OI, RANK, 2.0)
    nn.init.normal_(made.double().B_RO)
    return made


def effect(adapter: Any) -> Tensor:
    """What the adapter makes of weights: W', or M."""
    torch.manual_seed(0)
    weight_OI = torch.randn(OUTPUTS, INPUTS, dtype=torch.float64)
    return adapter.matrix()[0] if isinstance(adapter, SineBase) else adapter.adapt(weight_OI)


def targets() -> list[Tensor]:
    generator = torch.Generator().manual_seed(9)
    return [torch.randn(OUTPUTS, INPUTS, generator=generator, dtype=torch.float64) for _ in range(STEPS)]


def step(adapter: Any, optimizer: torch.optim.Optimizer, target_OI: Tensor) -> dict[str, Tensor]:
    optimizer.zero_grad()
    (effect(adapter) - target_OI).square().sum().backward()
    gradients = {name: p.grad.clone() for name, p in adapter.named_parameters() if p.grad is not None}
    optimizer.step()
    return gradients


def moved(
    kind: str, how: Any, optimizer_of: Any
) -> tuple[Any, torch.optim.Optimizer, Rotation, list[dict[str, Tensor]]]:
    """An adapter after some steps, its gradients in them, and the rotation that it is to make."""
    adapter = adapter_of(kind)
    optimizer = optimizer_of(adapter.parameters())
    gradients = [step(adapter, optimizer, target_OI) for target_OI in targets()]
    return adapter, optimizer, find_rotation(how, factors_of(adapter), GATES), gradients


def in_new_components(rotation: Rotation, value: Tensor, name: str, shape_of: Tensor) -> Tensor:
    """A gradient by the new components: autograd through the old ones as functions of these."""
    if name == "m_O":
        return value
    new = torch.zeros_like(shape_of, requires_grad=True)
    if name == "core":
        old = rotation.Q_RR.mT @ new @ rotation.P_RR
    else:
        old = torch.linalg.inv(rotation.P_RR if name == "A_RI" else rotation.Q_RR) @ new
    return torch.autograd.grad((old * value).sum(), new)[0]


@pytest.mark.parametrize("how", ["plain", "fisher"])
@pytest.mark.parametrize("kind", ["lora", "dora", "sine"])
def test_an_adapters_effect_stays_and_its_components_change(kind: str, how: str) -> None:
    adapter, optimizer, rotation, _ = moved(kind, how, lambda p: AdamW(p, lr=1e-2))
    before, A_RI, identity = effect(adapter).detach(), adapter.A_RI.detach().clone(), id(adapter.A_RI)
    rotate(adapter, rotation, optimizer)
    torch.testing.assert_close(effect(adapter), before, rtol=1e-10, atol=1e-10)
    assert (adapter.A_RI - A_RI).abs().max() > 0.05
    assert id(adapter.A_RI) == identity


@pytest.mark.parametrize("how", ["plain", "fisher"])
@pytest.mark.parametrize("kind", ["lora", "dora", "sine"])
@pytest.mark.parametrize("memory", ["exp_avg", "momentum_buffer"])
def test_first_moments_are_those_of_gradients_in_the_new_components(kind: str, how: str, memory: str) -> None:
    """Of all earlier steps, as if they had been taken in these components."""
    adam = memory == "exp_avg"
    adapter, optimizer, rotation, gradients = moved(
        kind, how, lambda p: AdamW(p, lr=1e-2, betas=(BETA, 0.99)) if adam else SGD(p, lr=1e-3, momentum=BETA)
    )
    rotate(adapter, rotation, optimizer)
    for name, p in adapter.named_parameters():
        expected = torch.zeros_like(p)
        for i, of_step in enumerate(gradients):
            new = in_new_components(rotation, of_step[name], name, p)
            weight = 1 - BETA if adam else 1.0
            expected = BETA * expected + weight * new if i or adam else new
        torch.testing.assert_close(optimizer.state[p][memory], expected.detach(), rtol=1e-9, atol=1e-9)
        if adam:
            assert int(optimizer.state[p]["step"]) == STEPS


def test_a_step_after_an_orthogonal_rotation_is_the_rotated_step() -> None:
    """With rows of A orthogonal and of one norm P is orthogonal, and gradient descent is the same in either basis."""
    ends = []
    for first in ("step", "rotation"):
        adapter = adapter_of("lora")
        with torch.no_grad():
            adapter.A_RI.copy_(torch.linalg.qr(adapter.A_RI.mT)[0].mT * 0.7)
        optimizer = SGD([adapter.A_RI, adapter.B_RO], lr=1e-3, momentum=BETA, weight_decay=0.1)
        rotation = find_rotation("plain", factors_of(adapter), GATES)
        torch.testing.assert_close(rotation.P_RR @ rotation.P_RR.mT, torch.eye(RANK, dtype=torch.float64))
        if first == "step":
            for target_OI in targets():
                step(adapter, optimizer, target_OI)
            rotate(adapter, rotation, optimizer)
        else:
            *others, last = targets()
            for target_OI in others:
                step(adapter, optimizer, target_OI)
            rotate(adapter, rotation, optimizer)
            step(adapter, optimizer, last)
        ends.append([effect(adapter).detach(), adapter.A_RI.detach(), adapter.B_RO.detach()])
    for ours, theirs in zip(*ends, strict=True):
        torch.testing.assert_close(ours, theirs, rtol=1e-9, atol=1e-10)


def test_second_moments_are_exact_where_components_gradients_are_uncorrelated_and_positive() -> None:
    """Of gradients of random signs: E (sum_j M_ij g_j)^2 = sum_j M_ij^2 E g_j^2."""
    adapter = adapter_of("lora")
    optimizer = AdamW(adapter.parameters(), lr=1e-9, betas=(0.9, 0.9999))
    generator = torch.Generator().manual_seed(1)
    rotation = find_rotation("fisher", factors_of(adapter), GATES)
    scale_R1 = torch.logspace(0, -1, RANK, dtype=torch.float64)[:, None]
    mean = torch.zeros_like(adapter.A_RI)
    steps = 4000
    for _ in range(steps):
        adapter.A_RI.grad = torch.randn(RANK, INPUTS, generator=generator, dtype=torch.float64) * scale_R1
        adapter.B_RO.grad = torch.zeros_like(adapter.B_RO)
        optimizer.step()
        new = torch.linalg.inv(rotation.P_RR).mT @ adapter.A_RI.grad
        mean = mean * 0.9999 + new.square() * 0.0001
    rotate(adapter, rotation, optimizer)
    torch.testing.assert_close(optimizer.state[adapter.A_RI]["exp_avg_sq"], mean.detach(), rtol=0.12, atol=0)


def test_an_adapter_without_an_optimizer_or_before_its_first_step_is_rotated_too() -> None:
    for optimizer in (None, AdamW([nn.Parameter(torch.zeros(1))])):
        adapter = adapter_of("dora")
        before = effect(adapter).detach()
        rotate(adapter, find_rotation("plain", factors_of(adapter), GATES), optimizer)
        torch.testing.assert_close(effect(adapter), before, rtol=1e-10, atol=1e-10)
