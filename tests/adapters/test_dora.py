"""DoRA's directions and magnitudes, and what a task's own stream sees of it, against the formulas written out."""

from __future__ import annotations

from itertools import product

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from faar_ray.adapters import AdaptedLinear, DoRA, LoRA, TaskLinears, build_adapter
from faar_ray.adapters.adapter import Site
from faar_ray.config.trial import AdapterConfig

O, I, R, N = 9, 6, 4, 11  # noqa: E741
TASKS = ("semseg", "depth")
RATE = 0.4


def base() -> nn.Linear:
    torch.manual_seed(0)
    return nn.Linear(I, O).double().requires_grad_(False)


def made(linear: nn.Linear, seed: int = 0, rate: float = 0.0, **keys: str) -> LoRA:
    """Away from its start, in training."""
    config = AdapterConfig.model_validate({"kind": "dora", "scale": 2.0, "dropout": rate, **keys})
    adapter = build_adapter(linear.weight, Site(0, 0, "fc1", "shared"), config, R, seed).double()
    torch.manual_seed(seed + 1)
    with torch.no_grad():
        for parameter in adapter.parameters():
            parameter.add_(0.3 * torch.randn_like(parameter))
    return adapter


def written_out(adapter: LoRA, W: Tensor, b: int) -> Tensor:
    """W', by the components before b."""
    assert isinstance(adapter, DoRA)
    norm = W.square().sum(1).sqrt()[:, None]
    V = (W / norm if adapter.normalised else W) + 2.0 * adapter.B_RO[:b].t() @ adapter.A_RI[:b]
    size = V.square().sum(1).sqrt()[:, None]
    names = dict(adapter.named_parameters())
    m = norm * (names["theta_O"].exp()[:, None] / norm) ** 0.1 if "theta_O" in names else names["m_O"][:, None]
    return m * V / (size.detach() if adapter.detached else size)


@pytest.mark.parametrize("b", [2, R])
@pytest.mark.parametrize(
    ("norm", "direction", "magnitude"),
    product(("detached", "attached"), ("weight", "normalised"), ("free", "anchored")),
)
def test_products_and_gradients_are_those_of_the_formula(norm: str, direction: str, magnitude: str, b: int) -> None:
    linear = base()
    adapter = made(linear, norm=norm, direction=direction, magnitude=magnitude)
    adapter.mask_prefix(b)
    x = torch.randn(2, N, I, dtype=torch.float64, requires_grad=True)
    leaves = [x, *adapter.parameters()]
    results = []
    for W in (None, written_out(adapter, linear.weight, b)):
        y = AdaptedLinear(linear, adapter)(x) if W is None else F.linear(x, W, linear.bias)
        results.append([y, *torch.autograd.grad((y**3).sum(), leaves, retain_graph=True)])
    torch.testing.assert_close(*results, rtol=1e-9, atol=1e-9)
    torch.testing.assert_close(adapter.adapt(linear.weight), written_out(adapter, linear.weight, b))


@pytest.mark.parametrize("direction", ["weight", "normalised"])
@pytest.mark.parametrize("magnitude", ["free", "anchored"])
def test_it_starts_at_the_frozen_weight_or_at_the_norms_of_drawn_rows(direction: str, magnitude: str) -> None:
    W = 3 * torch.randn(200, 50)
    keys = {"kind": "dora", "direction": direction, "magnitude": magnitude}
    site = Site(0, 0, "fc1", "shared")
    start = build_adapter(W, site, AdapterConfig.model_validate(keys), R, 0)
    torch.testing.assert_close(start.adapt(W), W)
    drawn = build_adapter(W, site, AdapterConfig.model_validate({**keys, "magnitude_start": "drawn"}), R, 0)
    assert torch.equal(drawn.A_RI, start.A_RI)
    lengths, norm = drawn.adapt(W).detach().norm(dim=1), W.norm(dim=1)
    power = 1.0 if magnitude == "free" else 0.1
    # entries uniform in +-1/sqrt(I): rows of length 1/sqrt(3)
    assert float((lengths / norm ** (1 - power)).mean()) == pytest.approx(3 ** (-power / 2), rel=0.02)


def of_tasks(linear: nn.Linear, rate: float, kind: str = "dora", *, apart: bool) -> tuple[AdaptedLinear, TaskLinears]:
    adapters = {task: made(linear, 1 + t, rate, kind=kind) for t, task in enumerate(TASKS)}
    tasks = TaskLinears(linear, adapters, whole_change=True, task_dropout=apart)
    return AdaptedLinear(linear, made(linear, 0, rate, kind=kind)), tasks


def inputs(streams: int) -> Tensor:
    return torch.randn(streams, 2, N, I, dtype=torch.float64, generator=torch.Generator().manual_seed(9))


@pytest.mark.parametrize("kind", ["lora", "dora"])
@pytest.mark.parametrize("apart", [True, False])
@pytest.mark.parametrize("streams", [1, 1 + len(TASKS)])
@pytest.mark.parametrize("carried", [True, False])
def test_on_a_shared_input_a_task_sees_its_whole_change(streams: int, apart: bool, carried: bool, kind: str) -> None:
    """y_t = W x_0 + b + (W'_t - W) d(x_t); d is drawn for each task, or only on what all share."""
    linear, x = base(), inputs(streams)
    shared, tasks = of_tasks(linear, RATE, kind, apart=apart)
    torch.manual_seed(7)
    y = tasks.on_shared_input(shared if carried else None, x)
    torch.manual_seed(7)
    if apart:
        own = F.dropout(x[1:] if streams > 1 else x.expand(len(TASKS), *x.shape[1:]), RATE)
    else:
        own = x[1:] if streams > 1 else F.dropout(x, RATE).expand(len(TASKS), *x.shape[1:])
    frozen = F.linear(x[0], linear.weight, linear.bias)
    for t, (_, adapter) in enumerate(tasks.of_tasks()):
        change = adapter.adapt(linear.weight) - linear.weight
        torch.testing.assert_close(y[t - len(TASKS)], frozen + F.linear(own[t], change))
    assert len(y) == len(TASKS) + carried


@pytest.mark.parametrize("streams", [1, len(TASKS)])
def test_with_masks_of_their_own_tasks_are_dropped_on_their_own_path_too(streams: int) -> None:
    linear, x = base(), inputs(streams)
    shared, tasks = of_tasks(linear, RATE, apart=True)
    torch.manual_seed(7)
    y = tasks(x)
    torch.manual_seed(7)
    whole = x.expand(len(TASKS), *x.shape[1:])
    dropped = F.dropout(whole, RATE)
    for t, (_, adapter) in enumerate(tasks.of_tasks()):
        change = adapter.adapt(linear.weight) - linear.weight
        expected = F.linear(whole[t], linear.weight, linear.bias) + F.linear(dropped[t], change)
        torch.testing.assert_close(y[t], expected)
    torch.manual_seed(7)
    torch.testing.assert_close(tasks.with_shared(shared, x if streams == 1 else torch.cat([x[:1], x]))[1:], y)
    tasks.eval()
    torch.testing.assert_close(tasks(x)[0], F.linear(x[0], next(tasks.of_tasks())[1].adapt(linear.weight), linear.bias))
