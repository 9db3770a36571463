"""LoRA and DoRA against plain fp64 references."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor

from faar_ray.adapters import AdaptedLinear, DoRA, LoRA, TaskLinears

O, I, R, N = 7, 5, 4, 11  # noqa: E741


def weight() -> Tensor:
    return torch.randn(O, I, generator=torch.Generator().manual_seed(1), dtype=torch.float64)


def trained(adapter: LoRA) -> LoRA:
    """An adapter that has moved away from its start."""
    torch.manual_seed(2)
    adapter.double()
    with torch.no_grad():
        for parameter in adapter.parameters():
            parameter.add_(0.3 * torch.randn_like(parameter))
    return adapter


def explicit(adapter: LoRA, base: Tensor, b: int) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """The paper's formulas written out: masks as diagonal matrices, plain autograd."""
    mask = torch.diag((torch.arange(adapter.rank) < b).double())
    A = adapter.A_RI.detach().clone().requires_grad_()
    B = adapter.B_RO.detach().t().clone().requires_grad_()
    A_eff, B_eff = mask @ A, B @ mask
    V = base + adapter.scale * B_eff @ A_eff
    m = torch.ones(O, dtype=torch.float64)
    if isinstance(adapter, DoRA):
        m = adapter.m_O.detach().clone().requires_grad_()
        norm = V.pow(2).sum(1).sqrt()
        V = V * (m / (norm.detach() if adapter.detached else norm))[:, None]
    return V, A, B, m


@pytest.mark.parametrize("b", [1, 2, R])
@pytest.mark.parametrize("kind", ["lora", "detached", "attached"])
def test_forward_and_all_gradients_equal_the_written_out_formula(kind: str, b: int) -> None:
    base = weight()
    adapter = trained(LoRA(base, R, 2.0) if kind == "lora" else DoRA(base, R, 2.0, kind))
    adapter.mask_prefix(b)
    linear = torch.nn.Linear(I, O).double()
    linear.weight.data = base.clone()
    adapted = AdaptedLinear(linear, adapter)
    x = torch.randn(N, I, dtype=torch.float64, requires_grad=True)
    x_reference = x.detach().clone().requires_grad_()
    target = torch.randn(N, O, dtype=torch.float64)

    ((adapted(x) - target) ** 2).sum().backward()
    W, A, B, m = explicit(adapter, base, b)
    ((x_reference @ W.t() + linear.bias.detach() - target) ** 2).sum().backward()

    for ours, reference in ((adapter.A_RI, A.grad), (adapter.B_RO, B.grad.t()), (x, x_reference.grad)):
        torch.testing.assert_close(ours.grad, reference, rtol=1e-10, atol=1e-10)
    if isinstance(adapter, DoRA):
        torch.testing.assert_close(adapter.m_O.grad, m.grad, rtol=1e-10, atol=1e-10)


@pytest.mark.parametrize("kind", [LoRA, DoRA])
def test_an_adapter_changes_nothing_at_the_start(kind: type[LoRA]) -> None:
    base = weight()
    torch.testing.assert_close(kind(base, R, 4.0).double().adapt(base), base, rtol=1e-6, atol=1e-6)


def test_the_norm_is_that_of_the_masked_change() -> None:
    base = weight()
    adapter = trained(DoRA(base, R, 4.0))
    adapter.mask_prefix(1)
    rows = adapter.adapt(base).norm(dim=1)
    torch.testing.assert_close(rows, adapter.m_O.abs(), rtol=1e-10, atol=1e-10)


def test_both_halves_of_importance_agree_and_equal_autograd_on_explicit_masked_factors() -> None:
    base = weight()
    adapter = trained(DoRA(base, R, 2.0))
    b = 3
    adapter.mask_prefix(b)
    target = torch.randn(O, I, dtype=torch.float64)
    ((adapter.adapt(base) - target) ** 2).sum().backward()
    W, A, B, _ = explicit(adapter, base, b)
    ((W - target) ** 2).sum().backward()
    of_A, of_B = (A * A.grad).sum(1).abs()[:b], (B * B.grad).sum(0).abs()[:b]

    torch.testing.assert_close(of_A, of_B, rtol=1e-6, atol=0)
    torch.testing.assert_close(adapter.importance(), (of_A + of_B) / 2, rtol=1e-8, atol=0)


def test_masked_components_get_a_gradient_of_zero() -> None:
    adapter = trained(LoRA(weight(), R, 1.0))
    adapter.mask_prefix(2)
    adapter.adapt(weight()).square().sum().backward()
    assert adapter.A_RI.grad is not None
    assert adapter.A_RI.grad[2:].eq(0).all()
    assert adapter.A_RI.grad[:2].ne(0).all()


def test_importance_without_gradients_says_when_to_call_it() -> None:
    with pytest.raises(RuntimeError, match=r"between backward\(\) and zero_grad\(\)"):
        LoRA(weight(), R, 1.0).importance()


def test_task_linears_are_one_adapted_linear_per_task() -> None:
    torch.manual_seed(0)
    base = torch.nn.Linear(I, O).double()
    adapters = {task: trained(DoRA(base.weight, rank, 2.0)) for task, rank in (("a", 2), ("b", 4))}
    tasks = TaskLinears(base, adapters)
    shared = torch.randn(1, 3, N, I, dtype=torch.float64)
    task_own = torch.randn(2, 3, N, I, dtype=torch.float64)
    for x, of_task in ((shared, (0, 0)), (task_own, (0, 1))):
        y = tasks(x)
        for t, adapter in enumerate(adapters.values()):
            torch.testing.assert_close(y[t], AdaptedLinear(base, adapter)(x[of_task[t]]))
