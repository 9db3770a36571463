"""Sine-AWB against the formulas written out, in float64."""

from __future__ import annotations

import math

import pytest
import torch
from scipy.ndimage import correlate1d
from torch import Tensor

from faar_ray.adapters import ClockNet, SineBase, SineWeights, Site, cached_kernels
from faar_ray.adapters.sinewich.low_pass import norm_kept, taps
from faar_ray.adapters.sinewich.sine_awb import DepthwiseBase, task_kernels
from faar_ray.adapters.sinewich.sine_measure import cosine_matrix, effective_rank, measure
from faar_ray.config.trial import SinewichConfig

O, I, R = 9, 6, 4  # noqa: E741
TASKS = ("semseg", "normals", "depth")


def config(**keys: object) -> SinewichConfig:
    return SinewichConfig.model_validate({"scale": 2.0, "blur_size": 3, **keys})


def base(conv_size: int = 1, seed: int = 0) -> SineBase:
    """One that has moved away from its start."""
    torch.manual_seed(seed)
    result = SineBase(torch.zeros(O, I), R, conv_size).double()
    with torch.no_grad():
        for parameter in result.parameters():
            parameter.add_(0.5 * torch.randn_like(parameter))
    return result


def layer(settings: SinewichConfig) -> SineWeights:
    owners = ("shared",) if settings.base == "shared" else TASKS
    bases = {owner: base(settings.conv_size, seed) for seed, owner in enumerate(owners)}
    return SineWeights(bases, ClockNet(TASKS, settings, 1).double(), settings, Site(0, 1, "proj_awb", "shared"))


def written_out(sine_base: SineBase, row_mask: Tensor, column_mask: Tensor) -> Tensor:
    """M = A diag(a) W diag(b) B^T, tap by tap, (taps, O, I)."""
    A_OR, B_IR = sine_base.B_RO.t(), sine_base.A_RI.t()
    cores = sine_base.core.reshape(R, R, -1)
    return torch.stack(
        [
            A_OR @ torch.diag(row_mask) @ cores[..., tap] @ torch.diag(column_mask) @ B_IR.t()
            for tap in range(cores.shape[-1])
        ]
    )


@pytest.mark.parametrize("conv_size", [1, 3])
@pytest.mark.parametrize("active", [1, 2, R])
def test_the_base_is_the_fused_product(conv_size: int, active: int) -> None:
    result = base(conv_size)
    result.mask_prefix(active)
    mask = (torch.arange(R) < active).double()
    torch.testing.assert_close(result.matrix(), written_out(result, mask, mask))


@pytest.mark.parametrize("conv_size", [1, 3])
def test_a_depthwise_core_is_the_diagonal_of_a_dense_one_also_masked_and_shrunk(conv_size: int) -> None:
    dense = base(conv_size)
    thin = DepthwiseBase(torch.zeros(O, I), R, conv_size).double()
    torch.testing.assert_close(thin.core, torch.eye(conv_size**2)[conv_size**2 // 2].expand(R, -1).double())
    with torch.no_grad():
        thin.core.normal_()
        dense.core.copy_(torch.diag_embed(thin.core.t()).movedim(0, -1).view_as(dense.core))
        thin.A_RI.copy_(dense.A_RI)
        thin.B_RO.copy_(dense.B_RO)
    for active in (R, 2):
        thin.mask_prefix(active)
        mask = (torch.arange(R) < active).double()
        torch.testing.assert_close(thin.matrix(), written_out(dense, mask, mask))
    thin.set_mask(torch.tensor([1.0, 0.5, 0.0, 1.0]).double())
    torch.testing.assert_close(thin.matrix(), written_out(dense, thin.mask_R, thin.mask_R))
    thin.keep(torch.tensor([2, 0]))
    assert thin.core.shape == (2, conv_size**2)
    of_both = [torch.stack([torch.outer(thin.B_RO[i], thin.A_RI[i]) * w for w in thin.core[i]]) for i in range(2)]
    torch.testing.assert_close(thin.matrix(), of_both[0] + of_both[1])


def test_starts_as_no_change_and_as_a_plain_product() -> None:
    result = SineBase(torch.zeros(O, I), R, 3)
    assert result.matrix().abs().max() == 0
    with torch.no_grad():
        result.B_RO.normal_()
    middle = result.matrix()[4]
    torch.testing.assert_close(middle, result.B_RO.t() @ result.A_RI)
    assert all(result.matrix()[tap].abs().max() == 0 for tap in range(9) if tap != 4)


@pytest.mark.parametrize("kind", ["shared", "independent"])
@pytest.mark.parametrize("conv_size", [1, 3])
@pytest.mark.parametrize("blur", ["matrix", "kernel", "none"])
@pytest.mark.parametrize("modulation", ["sine", "linear", "none"])
def test_kernels_are_the_formula_written_out(kind: str, conv_size: int, blur: str, modulation: str) -> None:
    if blur == "kernel" and conv_size == 1:
        pytest.skip("a 1x1 kernel has nothing to blur")
    settings = config(base=kind, conv_size=conv_size, blur=blur, modulation=modulation, rescale=True)
    weights = layer(settings)
    matrices = weights.matrices().detach().numpy()
    for t, omega in enumerate(weights.clock().tolist()):
        M = torch.from_numpy(matrices[t if kind == "independent" else 0])
        M_t = {"sine": torch.sin(omega * M), "linear": omega * M, "none": M}[modulation].numpy()
        shape: tuple[int, int] = (O, I)
        if blur == "kernel":
            shape = (3, 3)
            M_t = M_t.reshape(3, 3, O, I).transpose(2, 3, 0, 1)
        if blur != "none":
            for axis in (-1, -2):
                M_t = correlate1d(M_t, taps(3, 1.0), axis=axis, mode="reflect")
            M_t = M_t / norm_kept(shape, 3, 1.0)
        if blur == "kernel":
            M_t = M_t.transpose(2, 3, 0, 1).reshape(9, O, I)
        expected = torch.from_numpy(M_t) / math.sqrt(I * conv_size**2)
        torch.testing.assert_close(weights.kernels()[t].detach(), expected)


def test_gain_one_leaves_sines_their_size() -> None:
    plain, scaled = (layer(config(gain=gain)).kernels() for gain in ("one", "sqrt_fan_in"))
    torch.testing.assert_close(plain, scaled * math.sqrt(I))


@pytest.mark.parametrize("clock", ["lcn", "free"])
@pytest.mark.parametrize("conv_size", [1, 3])
@pytest.mark.parametrize("kind", ["shared", "independent"])
def test_gradients_flow_to_factors_core_and_clock(kind: str, conv_size: int, clock: str) -> None:
    weights = layer(config(base=kind, conv_size=conv_size, clock=clock))
    parameters = (*weights.parameters(), *weights.clock.parameters())
    assert torch.autograd.gradcheck(lambda *_: weights.kernels(), parameters)
    weights.kernels().pow(2).sum().backward()
    assert all(p.grad is not None and p.grad.abs().sum() > 0 for p in parameters)


@pytest.mark.parametrize("conv_size", [1, 3])
@pytest.mark.parametrize("active", [2, R])
def test_importance_is_the_derivative_along_explicit_masks(conv_size: int, active: int) -> None:
    """s_i = (|dL/da_i| + |dL/db_i|) / 2 for masks a, b on both sides of W, through sine, low-pass and all tasks."""
    weights = layer(config(conv_size=conv_size))
    result = weights.bases["shared"]
    assert isinstance(result, SineBase)
    result.mask_prefix(active)
    target = torch.randn_like(weights.kernels())
    ((weights.kernels() - target) ** 2).sum().backward()
    scores = result.importance()

    prefix = (torch.arange(R) < active).double()
    row_mask, column_mask = prefix.clone().requires_grad_(), prefix.clone().requires_grad_()
    M = written_out(result, row_mask, column_mask)[None]
    ((task_kernels(M, weights.clock(), weights.config) - target) ** 2).sum().backward()
    expected = (row_mask.grad.abs() + column_mask.grad.abs()) / 2
    torch.testing.assert_close(scores, expected[:active])

    along = (result.core * result.core.grad).reshape(R, R, -1).sum(-1)
    by_factor = [(p * p.grad).sum(1) for p in (result.B_RO, result.A_RI)]
    torch.testing.assert_close(along.sum(1), by_factor[0])
    torch.testing.assert_close(along.sum(0), by_factor[1])


def test_shrinking_keeps_rows_and_columns_of_the_core() -> None:
    result, index = base(3), torch.tensor([2, 0])
    expected = written_out(result, *(torch.isin(torch.arange(R), index).double(),) * 2)
    core = result.core.detach().clone()
    result.keep(index)
    assert result.rank == 2 and result.core.shape == (2, 2, 3, 3)
    assert torch.equal(result.core[0, 1], core[2, 0])
    torch.testing.assert_close(result.matrix(), expected)


def test_held_kernels_are_computed_once_and_pass_their_gradients_on(monkeypatch: pytest.MonkeyPatch) -> None:
    plain, stored = layer(config()), layer(config())
    targets = torch.randn(3, *plain.kernels().shape, dtype=torch.float64)
    for target in targets:
        ((plain.kernels() - target) ** 2).sum().backward()
    calls: list[SineBase] = []
    was = SineBase.matrix

    def counted(base: SineBase) -> Tensor:
        calls.append(base)
        return was(base)

    monkeypatch.setattr(SineBase, "matrix", counted)
    with cached_kernels([stored]):
        for target in targets:
            ((stored.kernels() - target) ** 2).sum().backward()
    assert len(calls) == 1
    ours, theirs = ([*w.parameters(), *w.clock.parameters()] for w in (stored, plain))
    for a, b in zip(ours, theirs, strict=True):
        torch.testing.assert_close(a.grad, b.grad)
    assert stored._cached is None


GAUSSIAN = [(1.0, 2.0), (1.0, 1.5), (2.0, 2.5), (5.0, 7.0), (10.0, 15.0)]


def product_of_rank_8() -> Tensor:
    """384 x 384, entries of std 1."""
    draw = torch.Generator().manual_seed(0)
    left, right = (torch.randn(*s, generator=draw, dtype=torch.float64) for s in ((384, 8), (8, 384)))
    return left @ right / math.sqrt(8)


def closed_form(a: float, b: float) -> float:
    def f(a: float, b: float) -> float:
        return (math.exp(-((a - b) ** 2) / 2) - math.exp(-((a + b) ** 2) / 2)) / 2

    return f(a, b) / math.sqrt(f(a, a) * f(b, b))


@pytest.mark.parametrize(("a", "b"), GAUSSIAN)
@pytest.mark.parametrize(("kind", "within"), [("independent entries", 0.01), ("rank 8", 0.1)])
def test_proposition_1_frequencies_decorrelate_task_weights(a: float, b: float, kind: str, within: float) -> None:
    """METHODS: entries of std 1, 384 x 384; products of rank 8 have heavier tails than the closed form assumes."""
    independent = torch.randn(384, 384, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    M = product_of_rank_8() if kind == "rank 8" else independent
    result = cosine_matrix(torch.stack([torch.sin(a * M).flatten(), torch.sin(b * M).flatten()]))[0, 1]
    assert float(result) == pytest.approx(closed_form(a, b), abs=within)


def test_proposition_2_linear_scaling_leaves_one_direction() -> None:
    result = [m.cosine for m in measure(layer(config(modulation="linear")))]
    assert result == pytest.approx([1.0, 1.0, 1.0], abs=1e-6)


def test_only_omega_times_std_matters() -> None:
    """METHODS: at std 0.05 even omega = (10, 15) leaves the weights nearly equal."""
    M = 0.05 * product_of_rank_8()
    result = cosine_matrix(torch.stack([torch.sin(w * M).flatten() for w in (10, 15)]))[0, 1]
    assert float(result) == pytest.approx(0.987, abs=0.002)


def test_the_sine_raises_the_effective_rank() -> None:
    """METHODS: 7.9 before, 86, 218 and 308 after omega = 1, 2, 5 (another draw: a few units of noise)."""
    M = product_of_rank_8()
    result = [effective_rank(M), *(effective_rank(torch.sin(omega * M)) for omega in (1, 2, 5))]
    assert result == pytest.approx([7.9, 86, 218, 308], abs=4)


def test_effective_rank_counts_equal_directions() -> None:
    assert effective_rank(torch.eye(5, 9, dtype=torch.float64)) == pytest.approx(5)
    assert effective_rank(torch.ones(4, 4, dtype=torch.float64)) == pytest.approx(1, abs=1e-4)
    assert effective_rank(torch.zeros(3, 3)) == 0


def test_measures_are_those_of_the_entries() -> None:
    weights = layer(config(conv_size=3))
    M = weights.bases["shared"].matrix().detach()
    result = list(measure(weights))
    assert [m.task for m in result] == list(TASKS) and {m.rank for m in result} == {R}
    assert result[0].omega == pytest.approx(weights.clock()[0].item())
    centred = M - M.mean()
    assert (result[0].mean, result[0].std) == pytest.approx((M.mean().item(), M.std(correction=0).item()))
    assert result[0].skew == pytest.approx((centred**3).mean().item() / M.std(correction=0).item() ** 3)
    unit = torch.nn.functional.normalize(weights.kernels().detach().flatten(1), dim=1)
    assert result[1].cosine == pytest.approx(((unit[1] @ unit[0] + unit[1] @ unit[2]) / 2).item())


def test_a_base_at_its_start_tells_no_task_apart() -> None:
    settings = config()
    fresh = SineWeights({"shared": SineBase(torch.zeros(O, I), R, 1)}, ClockNet(TASKS, settings, 0), settings,
                        Site(0, 0, "proj_awb", "shared"))  # fmt: skip
    assert [m.cosine for m in measure(fresh)] == [1.0, 1.0, 1.0]
    assert [m.effective_rank_task for m in measure(fresh)] == [0.0, 0.0, 0.0]


def test_autocast_leaves_kernels_as_they_are() -> None:
    """omega M is an angle: in bf16 it would be off by percents of a turn."""
    weights = layer(config(scale=50.0)).float()
    weights.clock.float()
    plain = weights.kernels()
    with torch.autocast("cpu", torch.bfloat16):
        assert torch.equal(weights.kernels(), plain)


def test_blocks_of_held_kernels_do_not_nest() -> None:
    weights = layer(config())
    with cached_kernels([weights]), pytest.raises(AssertionError), cached_kernels([weights]):
        pass


def test_what_is_not_finite_is_measured_as_nan() -> None:
    weights = layer(config())
    with torch.no_grad():
        next(iter(weights.bases.parameters())).fill_(math.nan)
    assert all(math.isnan(m.effective_rank) and math.isnan(m.effective_rank_task) for m in measure(weights))


def test_the_norm_given_back_is_that_of_the_filter() -> None:
    for cells, size in ((3, 7), (24, 9)):
        along = correlate1d(torch.eye(cells, dtype=torch.float64).numpy(), taps(size, 1.0), axis=-1, mode="reflect")
        expected = float((along**2).sum() / cells)
        assert norm_kept((cells, cells), size, 1.0) == pytest.approx(expected)
