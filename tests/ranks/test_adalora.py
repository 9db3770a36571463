"""AdaLoRA against its equations, written again entry by entry, and against HF PEFT's allocator."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from importlib.util import find_spec
from types import SimpleNamespace
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from faar_ray.adapters import AdaptedLinear, LoRA, Site, prepared
from faar_ray.adapters.linear import adapted_plainly
from faar_ray.config.trial import AdaloraConfig, TrialConfig
from faar_ray.errors import ConfigError
from faar_ray.models import adapter_list, build_model, parameters_by_part
from faar_ray.ranks.adalora import AdaLoRA, Schedule, schedule_of, values_of

STEPS = 200
OWN = AdaloraConfig(t_init=20, t_final=60, delta_t=7, target_rank=8 / 3)
"""140 = T - t_final is a multiple of 7."""
Cut = Callable[[int], list[Tensor]]
"""A step's number -> every adapter's E after it."""


def adapters() -> list[LoRA]:
    config = TrialConfig.resolve({"method": "adalora"})
    made = []
    for i, (outs, ins, rank) in enumerate([(8, 5, 4), (6, 9, 3), (7, 7, 6)]):
        adapter = LoRA(torch.zeros(outs, ins, dtype=torch.float64), rank, 1.0)
        adapter.site = Site(0, i, "fc1", "shared")
        made.append(prepared(adapter, config).double())
    return made


def optimizer_of(parameters: Sequence[nn.Parameter]) -> torch.optim.Optimizer:
    return torch.optim.SGD(parameters, lr=0.1)


def same_steps(cut_of: Callable[[list[LoRA]], Cut]) -> list[int]:
    """200 random steps under the policy and under a reference that sees copies; how many E are not 0 after each."""
    ours, theirs = adapters(), adapters()
    policy = AdaLoRA(ours, OWN, epochs=1)
    policy.begin(STEPS)
    cut, generator = cut_of(theirs), torch.Generator().manual_seed(3)
    nonzero = []
    for step in range(STEPS):
        policy.sample_mask(0, step)
        for mine, copy in zip(ours, theirs, strict=True):
            for p, q in zip(mine.parameters(), copy.parameters(), strict=True):
                size = float(torch.rand((), generator=generator)) ** 3
                p.grad = torch.randn(p.shape, generator=generator, dtype=p.dtype) * size
                p.data -= 0.1 * p.grad
                q.grad, q.data = p.grad.clone(), p.data.clone()
        policy.after_step(optimizer_of([*ours[0].parameters()]))
        expected = cut(step + 1)
        for adapter, E_R in zip(ours, expected, strict=True):
            assert torch.equal(values_of(adapter) == 0, E_R == 0), step
            torch.testing.assert_close(values_of(adapter).detach(), E_R, rtol=0, atol=0)
        nonzero.append(sum(int((values_of(a) != 0).sum()) for a in ours))
    return nonzero


def plain_reference(of: list[LoRA]) -> Cut:
    """The equations, one entry after another in Python's own floats."""
    smooth: dict[tuple[int, str, int], tuple[float, float]] = {}

    def cut(t: int) -> list[Tensor]:
        scores: list[tuple[float, int, int]] = []
        for a, adapter in enumerate(of):
            entry: dict[str, list[float]] = {}
            for name, p in adapter.named_parameters():
                assert p.grad is not None
                entry[name] = []
                for j, (w, g) in enumerate(zip(p.flatten().tolist(), p.grad.flatten().tolist(), strict=True)):
                    mean, spread = smooth.get((a, name, j), (0.0, 0.0))
                    if t < 140:
                        mean = 0.85 * mean + 0.15 * abs(w * g)
                        spread = 0.85 * spread + 0.15 * abs(abs(w * g) - mean)
                        smooth[a, name, j] = (mean, spread)
                    entry[name].append(mean * spread)
            for k in range(adapter.rank):
                rows = [entry[name] for name in ("A_RI", "B_RO")]
                widths = [len(row) // adapter.rank for row in rows]
                parts = [sum(row[k * n : (k + 1) * n]) / n for row, n in zip(rows, widths, strict=True)]
                scores.append((entry["E_R"][k] + sum(parts), a, k))
        budget = 13 if t <= 20 else 8 if t > 140 else int(8 + 5 * ((140 - t) / 120) ** 3)
        E = [values_of(adapter).detach() for adapter in of]
        if t > 140 or (t > 20 and t % 7 == 0):
            for _, a, k in sorted(scores)[: 13 - budget]:
                E[a][k] = 0
        return E

    return cut


def peft_reference(of: list[LoRA]) -> Cut:
    from peft.tuners.adalora.layer import RankAllocator

    model = nn.ModuleList()
    for adapter in of:
        named = {"lora_A": adapter.A_RI, "lora_B": adapter.B_RO.t(), "lora_E": values_of(adapter)[:, None]}
        model.append(nn.ModuleDict({n: nn.ParameterDict({"default": nn.Parameter(v)}) for n, v in named.items()}))
    schedule = {"target_r": 0, "tinit": 20, "tfinal": 60, "deltaT": 7, "total_step": STEPS}
    allocator: Any = RankAllocator(model, SimpleNamespace(beta1=0.85, beta2=0.85, **schedule), "default")
    assert allocator.init_bgt == 13
    allocator.target_bgt = 8

    def cut(t: int) -> list[Tensor]:
        E = []
        for adapter, layer in zip(of, model, strict=True):
            parts: Any = layer
            for name, p in (("lora_A", adapter.A_RI), ("lora_B", adapter.B_RO), ("lora_E", values_of(adapter))):
                shaped: Any = {"lora_A": lambda x: x, "lora_B": lambda x: x.t(), "lora_E": lambda x: x[:, None]}[name]
                parts[name]["default"].data, parts[name]["default"].grad = shaped(p.data).clone(), shaped(p.grad)
            E.append(parts["lora_E"]["default"])
        allocator.update_and_allocate(model, t)
        return [values.detach()[:, 0] for values in E]

    return cut


PEFT = pytest.param(
    peft_reference, marks=pytest.mark.skipif(find_spec("peft") is None, reason="peft is optional, and not installed")
)


@pytest.mark.parametrize("reference", [plain_reference, PEFT])
def test_over_200_random_steps_the_same_singular_values_are_zeroed(reference: Callable[[list[LoRA]], Cut]) -> None:
    nonzero = same_steps(reference)
    assert nonzero[:20] == [13] * 20
    cuts = nonzero[20:139:7]
    assert cuts == sorted(cuts, reverse=True)
    assert set(nonzero[20:139]) - set(cuts) == {13}  # what is zeroed comes back between two cuts
    assert nonzero[139:] == [8] * 61


def test_the_budget_falls_by_a_cubic_between_the_first_and_the_last_steps() -> None:
    schedule = schedule_of(OWN.model_copy(update={"target_rank": None, "t_init": 0.1, "t_final": 0.3}), [4, 3, 6], 200)
    assert schedule == Schedule(13, 8, 20, 60, 7, 200)
    assert [schedule.budget(t) for t in (1, 20, 21, 80, 140, 141, 200)] == [13, 13, 12, 8, 8, 8, 8]
    big = Schedule(1000, 200, 10, 20, 5, 130)
    assert [big.budget(t) for t in (10, 35, 60, 85, 110)] == [1000, 537, 300, 212, 200]
    assert [t for t in range(1, 131) if big.cuts(t)] == [*range(15, 110, 5), *range(110, 131)]
    assert Schedule(13, 8, 0, 0, 100, 50).cuts(50)  # the target is always reached


@pytest.mark.parametrize(
    ("keys", "steps", "message"),
    [
        ({"target_rank": 5.0}, 200, r"target_rank: must be at most the mean initial rank 4\.333, got 5"),
        ({"t_init": 5, "t_final": 5}, 10, r"below the trial's 10 steps, .* got 5 \+ 5"),
    ],
)
def test_a_schedule_that_does_not_fit_is_refused(keys: dict[str, Any], steps: int, message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        schedule_of(AdaloraConfig(**keys), [4, 3, 6], steps)


@pytest.mark.parametrize(
    ("dotted", "message"),
    [
        ({"adapter.kind": "sine_awb"}, r"ranks\.kind: must not be adalora .* a base has a matrix between"),
        ({"placement.task_path": "prompted"}, r"ranks\.kind: must not be adalora .* a filter of every component"),
        ({"adapter.kind": "spectrum"}, r"ranks\.kind: must be fixed where adapter\.kind is spectrum"),
        ({"adalora.t_init": 0.5, "adalora.t_final": 0.5}, r"t_init \+ t_final must be below 1"),
        ({"adalora.t_init": 1.5}, r"a share of all steps, 0 <= share < 1, got 1\.5"),
    ],
)
def test_what_does_not_go_with_it_is_refused_with_the_reason(dotted: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        TrialConfig.resolve({"method": "adalora"}, **dotted)


def test_a_layer_is_w_x_and_the_change_over_its_initial_rank_also_when_cut() -> None:
    adapter = adapters()[2]
    for p in adapter.parameters():
        nn.init.normal_(p)
    linear = AdaptedLinear(nn.Linear(7, 7).double(), adapter)
    x = torch.randn(40, 7, dtype=torch.float64, requires_grad=True)
    A, B, E = adapter.A_RI, adapter.B_RO.t(), values_of(adapter)
    plain = x @ linear.base.weight.t() + linear.base.bias + 16 / (6 + 1e-5) * (x @ A.t() * E) @ B.t()
    torch.testing.assert_close(linear(x), plain)
    torch.testing.assert_close(adapted_plainly(linear.base, [adapter], x[None])[0], plain)
    for ours, theirs in zip(
        *(torch.autograd.grad(y.sin().sum(), [x, *adapter.factors, E]) for y in (linear(x), plain)), strict=True
    ):
        torch.testing.assert_close(ours, theirs)

    with torch.no_grad():
        E[[1, 2, 5]] = 0
        whole = linear(x)
        adapter.keep(torch.tensor([4, 0, 3]))
        torch.testing.assert_close(linear(x), whole)
        adapter.keep(torch.tensor([], dtype=torch.int64))
        torch.testing.assert_close(linear(x), linear.base(x))


def test_the_penalty_is_the_mean_distance_of_factors_from_orthogonal_ones() -> None:
    of = adapters()
    policy = AdaLoRA(of, OWN, epochs=1)
    mean: Any = sum(((f @ f.t() - torch.eye(len(f))).square().sum()).sqrt() for a in of for f in a.factors) / 6
    torch.testing.assert_close(policy.loss_term(), 0.1 * mean)
    for adapter in of:
        adapter.A_RI.data = torch.linalg.qr(adapter.A_RI.data.t())[0].t()
        adapter.B_RO.data = torch.linalg.qr(adapter.B_RO.data.t())[0].t()
    term = policy.loss_term()
    assert term is not None
    assert term.item() < 1e-12


@torch.no_grad()
@pytest.mark.parametrize("method", ["lora", "dora", "mtlora", "lora_per_task"])
def test_on_every_placement_it_starts_at_the_backbone_and_adds_a_number_per_component(method: str) -> None:
    raw = {"method": method, "ranks": {"init_rank": 6}, "backbone": {"pretrained": False}}
    fixed, own = (build_model(TrialConfig.resolve(raw, **{"ranks.kind": kind})) for kind in ("fixed", "adalora"))
    ranks = [adapter.rank for adapter in adapter_list(own)]
    dead = sum(len(p) for name, p in own.named_parameters() if "unused" in name and name.endswith("A_RI"))
    more = parameters_by_part(own)["adapters"] - parameters_by_part(fixed)["adapters"]
    assert more == sum(ranks) + dead
    image = torch.randn(1, 3, 64, 64)
    for task, prediction in own.eval()(image).items():
        torch.testing.assert_close(prediction, fixed.eval()(image)[task])
