"""Drop-out on the input of low-rank branches, against the layers written out, HF PEFT and its own expectation."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from faar_ray.adapters import AdaptedLinear, DoRA, LoRA, TaskLinears, build_adapter
from faar_ray.adapters.adapter import Site
from faar_ray.adapters.fast import functional, merged
from faar_ray.adapters.fast.low_rank_update import LowRankUpdate
from faar_ray.adapters.linear import adapted, adapted_plainly
from faar_ray.config.trial import AdapterConfig, TrialConfig
from faar_ray.models import build_model
from faar_ray.models.ensemble import StreamedLinear

O, I, R, N = 9, 6, 4, 11  # noqa: E741
TASKS = ("semseg", "depth", "normals")
KINDS = ("lora", "detached", "attached")
RATE = 0.4


@pytest.fixture(params=["full", "skinny"])
def form(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> Iterator[str]:
    """Which form the backward pass takes, whatever would pay."""
    monkeypatch.setattr(merged, "skinny_pays", lambda rank, weight_OI: request.param == "skinny")
    monkeypatch.setattr(functional, "shared_input_pays", lambda weight_OI, updates: request.param == "skinny")
    yield request.param


def base() -> nn.Linear:
    torch.manual_seed(0)
    return nn.Linear(I, O).double().requires_grad_(False)


def moved(kind: str, linear: nn.Linear, seed: int = 0, rate: float = RATE) -> LoRA:
    """An adapter that has moved away from its start, in training."""
    torch.manual_seed(seed + 1)
    made = LoRA(linear.weight, R, 2.0) if kind == "lora" else DoRA(linear.weight, R, 2.0, kind)
    made.double().dropout = rate
    with torch.no_grad():
        for parameter in made.parameters():
            parameter.add_(0.3 * torch.randn_like(parameter))
    return made


def of_tasks(linear: nn.Linear, kind: str = "lora") -> tuple[AdaptedLinear, TaskLinears, Mapping[str, LoRA]]:
    adapters = {task: moved(kind, linear, seed=1 + t) for t, task in enumerate(TASKS)}
    return AdaptedLinear(linear, moved(kind, linear)), TaskLinears(linear, adapters), adapters


def inputs(streams: int) -> Tensor:
    generator = torch.Generator().manual_seed(9)
    return torch.randn(streams, 2, N, I, dtype=torch.float64, generator=generator).requires_grad_()


def mask_of(x: Tensor, seed: int = 7) -> Tensor:
    """d(x) as the layer's first draw after this seed gives it."""
    torch.manual_seed(seed)
    return F.dropout(x, RATE)


def gradients(y: Tensor, x: Tensor, adapters: Sequence[LoRA | None]) -> list[Tensor]:
    target = torch.randn(y.shape, generator=torch.Generator().manual_seed(5), dtype=y.dtype)
    leaves = [x, *(p for a in adapters if a is not None for p in a.parameters())]
    return [y, *torch.autograd.grad(((y - target) ** 2).sum(), leaves, allow_unused=True)]


@pytest.mark.parametrize("b", [1, R])
@pytest.mark.parametrize("streams", [1, 3])
@pytest.mark.parametrize("kind", KINDS)
def test_products_with_dropped_inputs_equal_plain_autograd(form: str, kind: str, streams: int, b: int) -> None:
    linear, x = base(), inputs(streams)
    adapters: list[LoRA | None] = [None, *(moved(kind, linear, seed=t) for t in range(2))]
    moved_last = adapters[-1]
    assert moved_last is not None
    moved_last.mask_prefix(b)
    torch.manual_seed(7)
    ours = gradients(adapted(linear, adapters, x, drop=True), x, adapters)
    plain = gradients(adapted_plainly(linear, adapters, x, mask_of(x)), x, adapters)
    torch.testing.assert_close(ours, plain, rtol=1e-10, atol=1e-10)
    assert (ours[0][1] - adapted(linear, adapters, x)[1]).abs().max() > 0.1
    A_grad = ours[-2] if kind == "lora" else ours[-3]
    assert (A_grad[b:] == 0).all()


def test_loras_layer_is_the_frozen_product_and_a_branch_on_dropped_inputs() -> None:
    linear, x = base(), inputs(1)
    layer, adapter = AdaptedLinear(linear, moved("lora", linear)), moved("lora", linear)
    torch.manual_seed(7)
    y = layer(x[0])
    branch = 2.0 * (mask_of(x)[0] @ adapter.A_RI.t()) @ adapter.B_RO
    torch.testing.assert_close(y, F.linear(x[0], linear.weight, linear.bias) + branch)


@pytest.mark.parametrize("kind", ["lora", "dora"])
def test_the_layer_equals_hf_pefts_with_the_same_mask(kind: str) -> None:
    peft = pytest.importorskip("peft")
    linear, x = base(), inputs(1)
    ours = AdaptedLinear(linear, moved("lora" if kind == "lora" else "detached", linear))
    holder = nn.Sequential(nn.Linear(I, O).double())
    holder.load_state_dict({f"0.{name}": value for name, value in linear.state_dict().items()})
    keys = {"r": R, "lora_alpha": 2.0 * R, "lora_dropout": RATE, "use_dora": kind == "dora", "target_modules": ["0"]}
    theirs = peft.get_peft_model(holder, peft.LoraConfig(**keys)).double().train()
    layer = theirs.base_model.model[0]
    with torch.no_grad():
        layer.lora_A["default"].weight.copy_(ours.adapter.A_RI)
        layer.lora_B["default"].weight.copy_(ours.adapter.B_RO.t())
        if isinstance(ours.adapter, DoRA):
            layer.lora_magnitude_vector["default"].weight.copy_(ours.adapter.m_O)
    results = []
    for forward in (ours, layer):
        torch.manual_seed(7)
        results.append(forward(x[0]))
    torch.testing.assert_close(*results, rtol=1e-9, atol=1e-9)


def authors(linear: nn.Linear, shared: LoRA, tasks: Mapping[str, LoRA], x: Tensor, dropped: Tensor) -> list[Tensor]:
    """MTLoRA's layer: the shared output and each task's, written out; x (S, ..., I), dropped of x_0."""
    frozen = F.linear(x[0], linear.weight, linear.bias)

    def branch(adapter: LoRA, given: Tensor) -> Tensor:
        return 2.0 * (given @ adapter.A_RI.t()) @ adapter.B_RO

    own = [dropped] * len(tasks) if len(x) == 1 else list(x[1:])
    return [
        frozen + branch(shared, dropped),
        *(frozen + branch(a, z) for a, z in zip(tasks.values(), own, strict=True)),
    ]


@pytest.mark.parametrize("carried", [True, False])
@pytest.mark.parametrize("streams", [1, 1 + len(TASKS)])
def test_the_shared_input_path_is_mtloras_layer(streams: int, carried: bool) -> None:
    linear, x = base(), inputs(streams)
    shared, tasks, adapters = of_tasks(linear)
    torch.manual_seed(7)
    y = tasks.on_shared_input(shared if carried else None, x)
    expected = authors(linear, shared.adapter, adapters, x, mask_of(x[0]))
    torch.testing.assert_close(y, torch.stack(expected if carried else expected[1:]))


@pytest.mark.parametrize("kind", ["detached", "attached"])
def test_the_shared_input_path_of_dora_drops_the_shared_stream_alone(kind: str) -> None:
    linear, x = base(), inputs(1 + len(TASKS))
    shared, tasks, _ = of_tasks(linear, kind)
    torch.manual_seed(7)
    y = tasks.on_shared_input(shared, x)
    torch.manual_seed(7)
    torch.testing.assert_close(y[0], shared(x[0]))
    whole = tasks.on_shared_input(None, x)
    torch.testing.assert_close(y[1:], whole)
    tasks.eval()
    torch.testing.assert_close(whole, tasks.on_shared_input(None, x))


@pytest.mark.parametrize("kind", KINDS)
def test_a_tasks_own_stream_is_not_dropped_and_the_shared_one_beside_it_is(kind: str) -> None:
    linear, x = base(), inputs(1 + len(TASKS))
    shared, tasks, _ = of_tasks(linear, kind)
    torch.manual_seed(7)
    both = tasks.with_shared(shared, x)
    torch.manual_seed(7)
    torch.testing.assert_close(both[0], shared(x[0]))
    whole = tasks(x[1:])
    torch.testing.assert_close(both[1:], whole)
    shared.eval(), tasks.eval()
    torch.testing.assert_close(whole, tasks(x[1:]))
    assert (both[0] - shared(x[0])).abs().max() > 0.1


def test_the_shared_linear_may_have_no_adapter() -> None:
    linear, x = base(), inputs(1 + len(TASKS))
    _, tasks, _ = of_tasks(linear)
    for streams in (x[:1], x):
        torch.testing.assert_close(tasks.with_shared(linear, streams)[0], linear(x[0]))


def test_an_ensemble_drops_every_stream_for_it_has_no_others() -> None:
    linear, x = base(), inputs(len(TASKS))
    _, tasks, adapters = of_tasks(linear)
    torch.manual_seed(7)
    y = StreamedLinear(tasks)(x.flatten(0, 1)).unflatten(0, (len(TASKS), -1))
    torch.testing.assert_close(y, adapted_plainly(linear, [*adapters.values()], x, mask_of(x)))


@pytest.mark.parametrize("kind", KINDS)
def test_in_expectation_the_layer_is_its_merged_weight(kind: str) -> None:
    linear, x = base(), inputs(1).detach()
    layer = AdaptedLinear(linear, moved(kind, linear))
    torch.manual_seed(3)
    with torch.no_grad():
        draws = layer(x.expand(4000, *x.shape[1:]).contiguous())
        expected = F.linear(x[0], layer.adapter.adapt(linear.weight), linear.bias)
    errors = (draws.mean(0) - expected) / (draws.std(0) / 4000**0.5)
    assert errors.abs().max() < 4.5  # 2 x 11 x 9 standard normals
    assert errors.std() == pytest.approx(1.0, abs=0.3)


@pytest.mark.parametrize("kind", KINDS)
def test_evaluation_drops_nothing_and_draws_nothing(kind: str) -> None:
    linear, x = base(), inputs(1)
    layer = AdaptedLinear(linear, moved(kind, linear)).eval()
    before = torch.get_rng_state()
    torch.testing.assert_close(layer(x[0]), F.linear(x[0], layer.adapter.adapt(linear.weight), linear.bias))
    without = AdaptedLinear(linear, moved(kind, linear, rate=0.0)).train()
    torch.set_rng_state(before)
    assert torch.equal(without(x[0]), layer(x[0]))
    assert torch.equal(torch.get_rng_state(), before)


class OnlyMerged(LoRA):
    """An adapter from elsewhere that has no plain tensors to give."""

    def low_rank_update(self) -> LowRankUpdate | None:
        return None


def test_adapters_that_only_merge_are_dropped_alike() -> None:
    linear, x = base(), inputs(1)
    adapter = OnlyMerged(linear.weight, R, 2.0).double()
    adapter.load_state_dict(moved("lora", linear).state_dict())
    adapter.dropout = RATE
    results = []
    for one in (adapter, moved("lora", linear)):
        torch.manual_seed(7)
        results.append(AdaptedLinear(linear, one)(x[0]))
    torch.testing.assert_close(*results)


def test_the_key_reaches_every_adapter_and_bf16_keeps_its_dtype() -> None:
    config = AdapterConfig(kind="lora", dropout=0.25)
    assert build_adapter(torch.ones(4, 3), Site(0, 0, "qkv", "shared"), config, 2, 0).dropout == 0.25
    raw = {"data": {"tasks": ["depth", "normals"], "image_size": 32}, "backbone": {"pretrained": False}}
    model = build_model(TrialConfig.resolve(raw, **{"adapter.dropout": 0.25, "ranks.init_rank": 2}))
    adapters = [module for module in model.modules() if isinstance(module, LoRA)]
    assert len(adapters) > 10
    assert {adapter.dropout for adapter in adapters} == {0.25}
    image = torch.rand(2, 3, 32, 32)
    first, second = model(image), model(image)
    assert not torch.equal(first["depth"], second["depth"])  # B is 0, but DoRA's heads see batch norm alone
