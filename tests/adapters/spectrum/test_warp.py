"""Warped spectra against a plain reference: numpy's decomposition, RK4 on v = a x + b, matrices written out."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from faar_ray.adapters import AdaptedLinear, Site, TaskLinears, build_spectrum_adapter, flows_together
from faar_ray.adapters.spectrum.decomposition import decompose, decomposition_of
from faar_ray.adapters.spectrum.warp import SpectrumWarp
from faar_ray.config.trial import AdapterConfig, SpectrumConfig

SHAPES = {(6, 6): 1, (12, 6): 2, (18, 6): 3, (24, 6): 1, (6, 24): 1, (9, 6): 1}
"""(out, in) of a weight, and the square blocks that it is taken as."""


def linear(outs: int, ins: int, dtype: torch.dtype = torch.float64) -> nn.Linear:
    torch.manual_seed(outs + ins)
    return nn.Linear(ins, outs).to(dtype)


def warp_on(
    of: nn.Linear, task: str = "shared", dropout: float = 0.0, strength: float = 0.5, **keys: Any
) -> SpectrumWarp:
    config = AdapterConfig(kind="spectrum", dropout=dropout)
    warp = build_spectrum_adapter(of, Site(0, 0, "fc1", task), config, SpectrumConfig(**keys), seed=0)
    assert isinstance(warp, SpectrumWarp)
    torch.manual_seed(1)
    nn.init.uniform_(warp.theta_1K, -strength, strength)
    return warp.to(of.weight.dtype)


def phi(x: float, theta: list[float], steps: int = 500) -> float:
    """The flow by RK4, v = a x + b from the rows of the basis, one by one."""
    n = len(theta) + 1
    affine = np.zeros((n, 2))
    for k in range(1, n):
        row = np.zeros((n, 2))
        row[:k, 0] = 1 / n
        row[k] = -k / n, k * (k + 1) / n**2
        affine += theta[k - 1] * row / abs(row).max()

    def v(at: float) -> float:
        a, b = affine[min(max(int(at * n), 0), n - 1)]
        return float(a * at + b)

    h = 1 / steps
    for _ in range(steps):
        k1 = v(x)
        k2 = v(x + h / 2 * k1)
        k3 = v(x + h / 2 * k2)
        k4 = v(x + h * k3)
        x += h / 6 * (k1 + 2 * k2 + 2 * k3 + k4)
    return x


def reference(weight: Tensor, blocks: int, theta: list[float], kind: str) -> Tensor:
    rows = []
    for block in np.split(weight.detach().numpy(), blocks):
        U, S, V = np.linalg.svd(block, full_matrices=False)
        if kind == "values":
            warped = np.array([S.max() * phi(s / S.max(), theta) for s in S])
        else:
            last = len(S) - 1
            warped = np.interp([phi(i / last, theta) * last for i in range(len(S))], range(len(S)), S)
        rows.append(U @ np.diag(warped) @ V)
    return torch.from_numpy(np.concatenate(rows))


@pytest.mark.parametrize("kind", ["values", "index"])
@pytest.mark.parametrize(("shape", "blocks"), SHAPES.items())
def test_the_adapted_weight_is_the_references(shape: tuple[int, int], blocks: int, kind: str) -> None:
    base = linear(*shape)
    warp = warp_on(base, strength=3.0, cells=8, warp=kind)
    with torch.no_grad():
        ours = warp.adapt(base.weight)
    theirs = reference(base.weight, blocks, warp.theta_1K[0].tolist(), kind)
    assert (theirs - base.weight).abs().max() > 2e-3
    torch.testing.assert_close(ours, theirs, rtol=0, atol=1e-6)


def test_a_task_s_flow_has_its_own_number_of_cells() -> None:
    base = linear(6, 6)
    assert warp_on(base).theta_1K.shape == (1, 63)
    assert warp_on(base, "semseg").theta_1K.shape == (1, 3)


def test_flows_start_at_the_identity_or_as_in_the_released_code() -> None:
    base, site = linear(18, 6), Site(0, 0, "qkv", "shared")
    for init, bound in {"identity": 0.0, "uniform": 63**-0.5}.items():
        spectrum = SpectrumConfig(init=init)
        warp = build_spectrum_adapter(base, site, AdapterConfig(kind="spectrum"), spectrum, seed=0).double()
        theta = next(warp.parameters()).detach().abs()
        assert bound * 0.8 <= theta.max() <= bound
        assert torch.equal(warp.adapt(base.weight), base.weight) == (init == "identity")


def test_the_largest_value_stays_and_the_order_too() -> None:
    base = linear(24, 24)
    warp = warp_on(base, cells=16, strength=3.0)
    S = decomposition_of(base).factors().S_QP[0]
    warped = S + warp.spectrum_change()[0]
    assert warped[0].item() == pytest.approx(S[0].item(), rel=1e-12)
    assert (warped.diff() < 0).all()
    assert (warped > 0).all()


def test_a_decomposition_is_the_same_again_and_its_signs_are_not_the_library_s() -> None:
    weight = linear(18, 6, torch.float32).weight
    first, second = decompose(weight, 3), decompose(weight.clone(), 3)
    for name in ("U_QOP", "S_QP", "V_QPI"):
        assert torch.equal(getattr(first, name), getattr(second, name))
    U = first.U_QOP
    assert (U.gather(1, U.abs().argmax(1, keepdim=True)) > 0).all()
    product = (U * first.S_QP[:, None]) @ first.V_QPI
    torch.testing.assert_close(product.flatten(0, 1), weight.detach(), rtol=0, atol=1e-6)


def test_adapters_on_a_linear_share_its_decomposition_which_no_state_holds_and_which_follows_the_weight() -> None:
    base = linear(6, 6, torch.float32)
    one, other = warp_on(base), warp_on(base, "semseg")
    decomposition = decomposition_of(base)
    assert one._of_linear == other._of_linear == (decomposition,)
    before = decomposition.factors()
    assert decomposition.factors() is before
    assert set(base.state_dict()) == {"weight", "bias"}
    assert set(one.state_dict()) == {"theta_1K"}
    with torch.no_grad():
        base.weight.mul_(2)
    torch.testing.assert_close(decomposition.factors().S_QP, 2 * before.S_QP)
    assert base.double() is base
    assert decomposition.factors().S_QP.dtype == torch.float64


def test_the_whole_input_is_dropped_but_for_a_task_s_own_stream() -> None:
    base, x = linear(6, 6), torch.rand(5, 6, dtype=torch.float64)
    shared, task = warp_on(base, dropout=0.5), warp_on(base, "semseg", dropout=0.5)
    layer, tasks = AdaptedLinear(base, shared), TaskLinears(base, {"semseg": task})

    torch.manual_seed(2)
    dropped = F.dropout(x, 0.5)
    assert not torch.equal(dropped, x)
    wanted = [F.linear(dropped, a.adapt(base.weight), base.bias) for a in (shared, task)]
    torch.manual_seed(2)
    torch.testing.assert_close(layer(x), wanted[0])
    torch.manual_seed(2)
    torch.testing.assert_close(tasks.with_shared(layer, x[None]), torch.stack(wanted))
    torch.manual_seed(2)
    own = tasks.with_shared(layer, torch.stack([x, x]))
    torch.testing.assert_close(own, torch.stack([wanted[0], F.linear(x, task.adapt(base.weight), base.bias)]))
    torch.testing.assert_close(layer.eval()(x), F.linear(x, shared.adapt(base.weight), base.bias))


@pytest.mark.parametrize("kind", ["values", "index"])
def test_flows_computed_together_are_those_computed_alone_with_their_gradients(kind: str) -> None:
    bases = [linear(*shape) for shape in SHAPES]
    warps = [warp_on(base, task, warp=kind) for base in bases for task in ("shared", "semseg")]
    weights = [base.weight for base in bases for _ in range(2)]

    def all_of() -> tuple[list[Tensor], list[Tensor]]:
        changed = [warp.adapt(weight) for warp, weight in zip(warps, weights, strict=True)]
        loss = torch.stack([W.square().sum() for W in changed]).sum()
        return changed, list(torch.autograd.grad(loss, [warp.theta_1K for warp in warps]))

    alone = all_of()
    with flows_together(warps):
        together = all_of()
    assert all(warp._change_QP is None for warp in warps)
    for ours, theirs in zip(together, alone, strict=True):
        torch.testing.assert_close(ours, theirs)


def test_under_autocast_a_flow_is_computed_in_full() -> None:
    base = linear(6, 6, torch.float32)
    warp = warp_on(base)
    change = warp.spectrum_change()
    with torch.autocast("cpu", torch.bfloat16), flows_together([warp]):
        assert warp._change_QP is not None
        torch.testing.assert_close(warp._change_QP, change)
        out = AdaptedLinear(base, warp)(torch.rand(2, 6))
    assert out.dtype == torch.bfloat16


def test_a_weight_of_zeros_stays_one() -> None:
    base = linear(6, 6)
    nn.init.zeros_(base.weight)
    for kind in ("values", "index"):
        warp = warp_on(base, warp=kind)
        changed = warp.adapt(base.weight)
        changed.sum().backward()
        assert not changed.any()
        assert warp.theta_1K.grad is not None
        assert warp.theta_1K.grad.isfinite().all()
