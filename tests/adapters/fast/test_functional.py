"""The custom products against plain autograd in fp64: every form of the backward pass, every gradient."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from functools import partial

import pytest
import torch
from torch import Tensor, nn

from faar_ray.adapters import DoRA, LoRA
from faar_ray.adapters.fast import functional, merged
from faar_ray.adapters.fast.functional import merged_products, shared_input_products
from faar_ray.adapters.fast.low_rank_update import LowRankUpdate
from faar_ray.adapters.linear import adapted, adapted_on_shared_input, adapted_plainly

O, I, R, N, T = 9, 6, 4, 13, 3  # noqa: E741
KINDS = ("lora", "detached", "attached")


@pytest.fixture(params=["full", "skinny"])
def form(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> Iterator[str]:
    """Which form the backward pass takes, whatever would pay."""
    monkeypatch.setattr(merged, "skinny_pays", lambda rank, weight_OI: request.param == "skinny")
    monkeypatch.setattr(functional, "shared_input_pays", lambda weight_OI, updates: False)
    yield request.param


def base(bias: bool = True) -> nn.Linear:
    torch.manual_seed(0)
    return nn.Linear(I, O, bias=bias).double().requires_grad_(False)


def moved(kind: str, linear: nn.Linear, rank: int = R, seed: int = 0) -> LoRA:
    """An adapter that has moved away from its start."""
    made = LoRA(linear.weight, rank, 2.0) if kind == "lora" else DoRA(linear.weight, rank, 2.0, kind)
    torch.manual_seed(seed + 1)
    made.double()
    with torch.no_grad():
        for parameter in made.parameters():
            parameter.add_(0.3 * torch.randn_like(parameter))
    return made


def gradients(y: Tensor, x: Tensor, adapters: Sequence[LoRA | None]) -> list[Tensor]:
    target = torch.randn(y.shape, generator=torch.Generator().manual_seed(5), dtype=y.dtype)
    inputs = [x, *(p for a in adapters if a is not None for p in a.parameters())]
    return [y, *torch.autograd.grad(((y - target) ** 2).sum(), inputs)]


def on_shared_input_plainly(linear: nn.Linear, adapters: Sequence[LoRA | None], x: Tensor, n_on_shared: int) -> Tensor:
    """out_k = c_k (W x_0 + s B_k A_k x_k) + b, written out."""
    outputs = []
    for k, a in enumerate(adapters):
        x_k = x[0] if len(x) == 1 or k < n_on_shared else x[1 + k - n_on_shared]
        frozen = x[0] @ linear.weight.t()
        if a is not None:
            A, B = a.A_RI[: a.prefix_length], a.B_RO[: a.prefix_length]
            frozen = frozen + a.scale * (x_k @ A.t()) @ B
            if isinstance(a, DoRA):
                norm = (linear.weight + a.scale * B.t() @ A).norm(dim=1)
                frozen = frozen * (a.m_O / (norm.detach() if a.detached else norm))
        outputs.append(frozen if linear.bias is None else frozen + linear.bias)
    return torch.stack(outputs)


@pytest.mark.parametrize("b", [1, 3, R])
@pytest.mark.parametrize("streams", [1, T])
@pytest.mark.parametrize("bias", [True, False])
@pytest.mark.parametrize("kind", KINDS)
def test_products_with_merged_weights_equal_plain_autograd(
    form: str, kind: str, bias: bool, streams: int, b: int
) -> None:
    linear = base(bias)
    adapters = [moved(kind, linear, seed=t) for t in range(T)]
    adapters[1].mask_prefix(b)
    x = torch.randn(streams, 2, N, I, dtype=torch.float64, requires_grad=True)
    ours, plain = (gradients(f(linear, adapters, x), x, adapters) for f in (adapted, adapted_plainly))
    torch.testing.assert_close(ours, plain, rtol=1e-10, atol=1e-10)


@pytest.mark.parametrize("b", [1, R])
@pytest.mark.parametrize(("streams", "n_on_shared"), [(1, 0), (1, 1), (1 + T, 0), (1 + T, 1)])
@pytest.mark.parametrize("kind", KINDS)
def test_products_on_a_shared_input_equal_plain_autograd(kind: str, streams: int, n_on_shared: int, b: int) -> None:
    linear = base()
    adapters = [moved(kind, linear, seed=t) for t in range(T + n_on_shared)]
    adapters[-1].mask_prefix(b)
    x = torch.randn(streams, 2, N, I, dtype=torch.float64, requires_grad=True)
    ours, plain = (
        gradients(f(linear, adapters, x, n_on_shared), x, adapters)
        for f in (adapted_on_shared_input, on_shared_input_plainly)
    )
    torch.testing.assert_close(ours, plain, rtol=1e-10, atol=1e-10)


@pytest.mark.parametrize("kind", KINDS)
def test_one_stream_under_several_changes_is_the_same_by_either_form(
    kind: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    linear = base()
    adapters = [None, *(moved(kind, linear, seed=t) for t in range(T))]
    x = torch.randn(1, N, I, dtype=torch.float64, requires_grad=True)
    result = []
    for shared_input in (True, False):
        monkeypatch.setattr(functional, "shared_input_pays", partial(lambda pays, *_: pays, shared_input))
        result.append(gradients(adapted(linear, adapters, x), x, adapters))
    torch.testing.assert_close(*result, rtol=1e-10, atol=1e-10)


@pytest.mark.parametrize("detached", [False])
def test_gradients_pass_gradcheck(form: str, detached: bool) -> None:
    """Finite differences see the attached norm only: the detached one is no derivative of the output."""
    linear = base()
    adapters = [moved("attached", linear, seed=t) for t in range(2)]
    tensors = [p.detach().clone().requires_grad_() for a in adapters for p in a.parameters()]

    def products(take: Callable[..., Tensor]) -> Callable[..., Tensor]:
        def of(x: Tensor, *values: Tensor) -> Tensor:
            pairs = (values[:3], values[3:])
            return take(x, [LowRankUpdate(A, B, m, 2.0, detached) for A, B, m in pairs])

        return of

    x = torch.randn(3, 3, I, dtype=torch.float64, requires_grad=True)
    by_merged = products(lambda x, updates: merged_products(x[:2], linear.weight, linear.bias, updates))
    by_shared_input = products(lambda x, updates: shared_input_products(x, 0, linear.weight, linear.bias, updates))
    assert torch.autograd.gradcheck(by_merged, (x, *tensors))
    assert torch.autograd.gradcheck(by_shared_input, (x, *tensors))


def test_the_magnitudes_gradient_is_right_where_a_magnitude_is_zero_or_tiny(form: str) -> None:
    linear = base()
    adapter = moved("detached", linear)
    with torch.no_grad():
        adapter.m_O[:3] = torch.tensor([0.0, 1e-14, -1e-5])
    x = torch.randn(1, N, I, dtype=torch.float64, requires_grad=True)
    ours, plain = (gradients(f(linear, [adapter], x), x, [adapter]) for f in (adapted, adapted_plainly))
    torch.testing.assert_close(ours, plain, rtol=1e-10, atol=1e-10)


def test_gradients_are_whole_with_zeros_beyond_the_prefix_and_right_after_a_shrink(form: str) -> None:
    linear = base()
    adapter = moved("detached", linear)
    adapter.mask_prefix(2)
    x = torch.randn(1, N, I, dtype=torch.float64)
    adapted(linear, [adapter], x).square().sum().backward()
    for factor in adapter.factors:
        assert factor.grad is not None
        assert factor.grad.shape == factor.shape
        assert factor.grad[2:].eq(0).all()
        assert factor.grad[:2].ne(0).all()

    adapter.keep(torch.tensor([3, 0]))
    assert adapter.prefix_length == 2
    x = x.requires_grad_()
    ours, plain = (gradients(f(linear, [adapter], x), x, [adapter]) for f in (adapted, adapted_plainly))
    torch.testing.assert_close(ours, plain, rtol=1e-10, atol=1e-10)


@pytest.mark.parametrize("kind", KINDS)
def test_under_bf16_autocast_products_and_gradients_are_near_those_of_fp32(form: str, kind: str) -> None:
    linear = base()
    adapters = [moved(kind, linear, seed=t).float() for t in range(T)]
    linear.float()
    x = torch.randn(T, 4, N, I, requires_grad=True)
    for shared_input in (False, True):
        exact = gradients(
            on_shared_input_plainly(linear, adapters, x[:1], 0)
            if shared_input
            else adapted_plainly(linear, adapters, x),
            x,
            adapters,
        )
        with torch.autocast("cpu", dtype=torch.bfloat16):
            y = adapted_on_shared_input(linear, adapters, x[:1], 0) if shared_input else adapted(linear, adapters, x)
        assert y.dtype == torch.bfloat16
        near = gradients(y.float(), x, adapters)
        assert [g.dtype for g in near] == [torch.float32] * len(near)
        for ours, theirs in zip(near, exact, strict=True):
            assert (ours - theirs).norm() <= 0.03 * theirs.norm()


@pytest.mark.parametrize("kind", KINDS)
def test_a_compiled_linear_follows_its_prefix_without_compiling_again(kind: str) -> None:
    linear = base()
    adapters = [moved(kind, linear, seed=t) for t in range(2)]
    x = torch.randn(1, N, I, dtype=torch.float64, requires_grad=True)
    compilations = []

    def backend(graph: torch.fx.GraphModule, inputs: list[Tensor]) -> Callable[..., object]:
        compilations.append(graph)
        return graph.forward

    torch.compiler.reset()
    holder = nn.ModuleList(adapters)
    compiled = torch.compile(lambda x: adapted(linear, list(holder), x), backend=backend, fullgraph=True)
    for b in (R, 2, 1, 3):
        for adapter in adapters:
            adapter.mask_prefix(b)
        torch.testing.assert_close(
            gradients(compiled(x), x, adapters),
            gradients(adapted(linear, adapters, x), x, adapters),
            rtol=1e-10,
            atol=1e-10,
        )
    assert len(compilations) == 1


@pytest.mark.parametrize("kind", KINDS)
def test_a_merged_weight_that_is_formed_anew_is_the_one_of_the_forward_pass(
    kind: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Bit for bit; and then it is not kept for the backward pass."""
    linear = base()
    adapter, x = moved(kind, linear), torch.randn(1, N, I, dtype=torch.float64, requires_grad=True)
    monkeypatch.setattr(merged, "skinny_pays", lambda rank, weight_OI: True)
    weights, results = [], []
    for anew in (False, True):
        monkeypatch.setattr(merged, "remerging_pays", lambda rank, tokens, anew=anew: anew)
        shapes: list[torch.Size] = []
        with torch.autograd.graph.saved_tensors_hooks(partial(noted, shapes), lambda t: t):
            y = adapted(linear, [adapter], x)
        weights.append(shapes.count(torch.Size([O, I])))
        results.append(gradients(y, x, [adapter]))
    assert weights == [2, 1]  # the frozen one always
    assert all(torch.equal(a, b) for a, b in zip(*results, strict=True))


def noted(shapes: list[torch.Size], kept: Tensor) -> Tensor:
    shapes.append(kept.shape)
    return kept


def test_merging_anew_is_left_to_small_ranks_and_many_tokens() -> None:
    assert merged.remerging_pays(5, 1568)  # the third stage of a Swin-T, two images of 448
    assert not merged.remerging_pays(5, 392)
    assert not merged.remerging_pays(64, 1568)


def test_the_cheap_form_is_taken_where_it_is_cheap() -> None:
    wide = torch.empty(3072, 768)
    assert merged.skinny_pays(5, wide)
    assert not merged.skinny_pays(700, wide)
    assert not merged.skinny_pays(5, wide.to("meta"))
    updates = [LowRankUpdate(torch.empty(r, 96), torch.empty(r, 96), None, 1.0) for r in (5, 5, 5, 5)]
    assert functional.shared_input_pays(torch.empty(96, 96), updates)
