"""CPAB flows against RK4, finite differences, and what any flow must be."""

from __future__ import annotations

from collections.abc import Callable

import pytest
import torch
from torch import Tensor

from faar_ray.adapters.spectrum.cpab_flow import crossing_time, exp_quotient, flow, knot_velocities

KINDS = {4: 0.6, 16: 1.0, 64: 1.5}
"""Cells, and how strong thetas are: at 16 and 64 points cross many cells."""


def thetas(cells: int, flows: int = 6) -> Tensor:
    generator = torch.Generator().manual_seed(cells)
    scale: float = KINDS[cells] * cells**0.5
    return scale * (2 * torch.rand(flows, cells - 1, generator=generator, dtype=torch.float64) - 1)


def points(flows: int = 6, dtype: torch.dtype = torch.float64, count: int = 200) -> Tensor:
    generator = torch.Generator().manual_seed(1)
    return torch.rand(flows, count, generator=generator, dtype=torch.float64).sort(1).values.to(dtype)


def bases(cells: int) -> Tensor:
    """BASELINES' rows (a, b) per cell, (n - 1, n, 2), each over its largest absolute entry."""
    s, rows = 1 / cells, torch.zeros(cells - 1, cells, 2, dtype=torch.float64)
    for k in range(1, cells):
        rows[k - 1, :k, 0] = s
        rows[k - 1, k] = torch.tensor([-k * s, k * s * (k + 1) * s])
    return rows / rows.abs().amax(dim=(1, 2), keepdim=True)


def velocity(theta_LK: Tensor) -> Callable[[Tensor], Tensor]:
    cells = theta_LK.shape[1] + 1
    affine = torch.einsum("lk,kcd->lcd", theta_LK, bases(cells).to(theta_LK))

    def v(x_LP: Tensor) -> Tensor:
        cell = (x_LP * cells).long().clamp(0, cells - 1)
        return affine[:, :, 0].gather(1, cell) * x_LP + affine[:, :, 1].gather(1, cell)

    return v


def runge_kutta(x: Tensor, theta_LK: Tensor, steps: int = 400) -> Tensor:
    v, h = velocity(theta_LK), 1 / steps
    for _ in range(steps):
        k1 = v(x)
        k2 = v(x + h / 2 * k1)
        k3 = v(x + h / 2 * k2)
        k4 = v(x + h * k3)
        x = x + h / 6 * (k1 + 2 * k2 + 2 * k3 + k4)
    return x


@pytest.mark.parametrize("cells", KINDS)
def test_velocities_at_borders_are_those_of_the_bases_of_a_and_b(cells: int) -> None:
    theta, borders = thetas(cells), torch.linspace(0, 1, cells + 1, dtype=torch.float64).expand(6, -1)
    torch.testing.assert_close(knot_velocities(theta), velocity(theta)(borders), rtol=0, atol=1e-13)
    assert not knot_velocities(theta)[:, [0, -1]].any()


@pytest.mark.parametrize("cells", KINDS)
def test_values_equal_those_of_runge_kutta(cells: int) -> None:
    x, theta = points(), thetas(cells)
    moved = flow(x, theta)
    crossed = ((moved * cells).long() - (x * cells).long()).abs().amax()
    assert crossed >= (1 if cells == 4 else 3)
    # RK4's own error at a kink of v is of second order
    torch.testing.assert_close(moved, runge_kutta(x, theta, 1500), rtol=0, atol=1e-6)


@pytest.mark.parametrize("cells", KINDS)
def test_thetas_as_strong_as_the_released_start_agree_to_a_millionth_in_single_precision_too(cells: int) -> None:
    x, theta = points(), thetas(cells) / (KINDS[cells] * cells**0.5) / (cells - 1) ** 0.5
    wanted = runge_kutta(x, theta, 300)
    single = flow(x.float(), theta.float())
    assert single.dtype == torch.float32
    for ours in (flow(x, theta), single.double()):
        torch.testing.assert_close(ours, wanted, rtol=0, atol=1e-6)


@pytest.mark.parametrize("cells", KINDS)
def test_a_flow_is_monotone_keeps_both_ends_and_is_undone_by_its_inverse(cells: int) -> None:
    theta = thetas(cells)
    x = torch.cat([torch.zeros(6, 1), points(), torch.ones(6, 1)], 1).double()
    moved = flow(x, theta)
    assert (moved.diff(dim=1) > 0).all()
    assert torch.equal(moved[:, [0, -1]], x[:, [0, -1]])
    torch.testing.assert_close(flow(moved, -theta), x, rtol=0, atol=1e-9)


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_theta_0_is_the_identity_and_has_the_velocities_as_gradients(dtype: torch.dtype) -> None:
    x, theta = points(dtype=dtype), torch.zeros(6, 15, dtype=dtype, requires_grad=True)
    assert torch.equal(flow(x, theta), x)
    for k in (0, 7, 14):
        alone = torch.zeros(6, 15, dtype=dtype)
        alone[:, k] = 1
        gradient = torch.autograd.grad(flow(x, theta).sum(), theta)[0][:, k]
        torch.testing.assert_close(gradient, velocity(alone)(x).sum(1), rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("cells", KINDS)
def test_gradients_equal_those_of_finite_differences(cells: int) -> None:
    x, theta = points(count=12).requires_grad_(), thetas(cells).requires_grad_()
    assert torch.autograd.gradcheck(flow, (x, theta), eps=1e-7, atol=1e-5, rtol=1e-4)


def test_gradients_equal_those_through_runge_kutta() -> None:
    """At thetas as strong as the released code starts with; the kinks of v cost RK4 accuracy."""
    weights = torch.randn(6, 200, generator=torch.Generator().manual_seed(2), dtype=torch.float64)
    for cells in (4, 64):
        x, theta = points().requires_grad_(), (thetas(cells) / cells).requires_grad_()
        ours = torch.autograd.grad((weights * flow(x, theta)).sum(), (x, theta))
        theirs = torch.autograd.grad((weights * runge_kutta(x, theta, 300)).sum(), (x, theta))
        for our, their in zip(ours, theirs, strict=True):
            torch.testing.assert_close(our, their, rtol=2e-3, atol=2e-3)


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_nothing_is_nan_where_a_is_0_where_v_is_0_and_at_borders(dtype: torch.dtype) -> None:
    borders = torch.linspace(0, 1, 5, dtype=dtype)
    level = torch.tensor([4.0, 0.0, 0.0], dtype=dtype)  # at rest from 1/2 on
    falling = torch.tensor([-1.0, 0.0, 3.0], dtype=dtype)
    for theta in (level, falling, torch.zeros(3, dtype=dtype), torch.tensor([1e-25, -1e-30, 1e-40], dtype=dtype)):
        x, t = borders[None].clone().requires_grad_(), theta[None].clone().requires_grad_()
        moved = flow(x, t)
        moved.sum().backward()
        for value in (moved, x.grad, t.grad):
            assert value is not None
            assert value.isfinite().all()


def test_a_level_velocity_moves_by_itself() -> None:
    """Cells 1 and 2 of 4 at the same v at all their borders: a = 0 there."""
    theta = torch.tensor([[0.0, 0.0, 0.0]], dtype=torch.float64)
    knots = torch.tensor([0.1, 0.1, 0.1], dtype=torch.float64)  # v(j/4) = j/4 sum_{k >= j} theta_k / k
    sums = knots * 4 / torch.arange(1, 4)
    theta[0] = (sums - torch.cat([sums[1:], torch.zeros(1)])) * torch.arange(1, 4)
    torch.testing.assert_close(knot_velocities(theta)[0, 1:4], knots)
    torch.testing.assert_close(flow(torch.tensor([[0.3, 0.62]]).double(), theta), torch.tensor([[0.4, 0.72]]).double())


@pytest.mark.parametrize("z", [-3.0, -0.2, -1e-3, 0.0, 1e-9, 0.19, 0.21, 2.0])
def test_quotients_equal_those_of_many_digits_on_both_sides_of_their_seams(z: float) -> None:
    from decimal import Decimal, getcontext

    getcontext().prec = 60
    d = Decimal(z)
    wanted = 1.0 if z == 0 else float((d.exp() - 1) / d)
    assert exp_quotient(torch.tensor(z, dtype=torch.float64)).item() == pytest.approx(wanted, rel=1e-14)
    v1 = d.exp()
    time = 1.0 if z == 0 else float(d / (v1 - 1))
    measured = crossing_time(*torch.tensor([1.0, 1.0, float(v1)], dtype=torch.float64))
    assert measured.item() == pytest.approx(time, rel=1e-14)
