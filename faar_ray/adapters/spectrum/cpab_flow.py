"""CPAB flows of the unit interval in closed form: monotone maps from a few numbers (Freifeld et al. 2017; DiTASK).

The velocity is continuous, affine on each of n equal cells and 0 at both ends. A flow follows it for one unit of time:
phi(x) = x(1) with dx/dt = v(x), x(0) = x. Its inverse is the flow of -theta.

Axes: L flows, K = n - 1 numbers of a flow, P points, C = n cells.
"""

from __future__ import annotations

import torch
from torch import Tensor

SLOWEST = 1e-15
"""What moves slower than this leaves no cell: within one unit of time it does not get anywhere."""
NEVER = 8.0
"""Time to cross a cell that cannot be crossed; all there is is one unit."""
ATANH_SERIES = tuple(1 / (2 * k + 1) for k in range(8, -1, -1))
SINH_SERIES = (1 / 362_880, 1 / 5_040, 1 / 120, 1 / 6, 1.0)


def flow(x_LP: Tensor, theta_LK: Tensor) -> Tensor:
    """phi of every point under its flow, (L, P); differentiable in both, of any floating dtype.

    Args:
        x_LP: points in [0, 1].
        theta_LK: n - 1 numbers of each flow; 0 is the identity.
    """
    cells = theta_LK.shape[1] + 1
    knots_LN = knot_velocities(theta_LK)
    cell_LP = (x_LP.detach() * cells).long().clamp_(0, cells - 1)
    left_LP, right_LP = knots_LN.gather(1, cell_LP), knots_LN.gather(1, cell_LP + 1)
    share_LP = x_LP * cells - cell_LP
    v_LP = torch.lerp(left_LP, right_LP, share_LP)

    # to the border ahead, then over whole cells while time is left
    ahead_LP = v_LP.detach() > 0
    border_LP = torch.where(ahead_LP, right_LP, left_LP)
    distance_LP = torch.where(ahead_LP, 1 - share_LP, share_LP) / cells
    to_border_LP = crossing_time(distance_LP, v_LP, border_LP)
    leaves_LP = to_border_LP.detach() < 1
    crossed_LP, on_the_way_LP = _whole_cells(knots_LN, cell_LP, ahead_LP, to_border_LP)

    # the last stretch, within one cell
    entered_LP = torch.where(ahead_LP, cell_LP + 1 + crossed_LP, cell_LP - 1 - crossed_LP)
    last_LP = torch.where(leaves_LP, entered_LP, cell_LP).clamp_(0, cells - 1)
    knot_LP = torch.where(ahead_LP, last_LP, last_LP + 1)
    start_LP = torch.where(leaves_LP, knot_LP / cells, x_LP)
    speed_LP = torch.where(leaves_LP, knots_LN.gather(1, knot_LP), v_LP)
    left_over_LP = torch.where(leaves_LP, 1 - to_border_LP - on_the_way_LP, torch.ones_like(x_LP))
    slope_LP = (knots_LN.gather(1, last_LP + 1) - knots_LN.gather(1, last_LP)) * cells
    return start_LP + speed_LP * left_over_LP * exp_quotient(slope_LP * left_over_LP)


def knot_velocities(theta_LK: Tensor) -> Tensor:
    """v at the n + 1 borders of cells, (L, n + 1): v(j/n) = j/n sum_{k >= j} theta_k / k.

    theta_k is the weight of a ramp from 0 to 1/n at k/n, which falls to 0 within the next cell. So are the rows of the
    basis of (a, b), of v = a x + b on each cell, over their largest entries.
    """
    steps_K = torch.arange(1, theta_LK.shape[1] + 1, device=theta_LK.device, dtype=theta_LK.dtype)
    sums_LK = (theta_LK / steps_K).flip(1).cumsum(1).flip(1)
    return torch.nn.functional.pad(sums_LK * (steps_K / (theta_LK.shape[1] + 1)), (1, 1))


def crossing_time(distance: Tensor, v0: Tensor, v1: Tensor) -> Tensor:
    """Time over a distance on which v is affine, from v0 to v1: distance over their logarithmic mean.

    `NEVER` where v changes its sign or comes to rest.
    """
    moves = (v0.detach() * v1.detach().sign() > SLOWEST) & (v1.detach().abs() > SLOWEST)
    one = torch.ones_like(v0)
    v0, v1 = torch.where(moves, v0.abs(), one), torch.where(moves, v1.abs(), one)
    m = (v1 - v0) / (v1 + v0)
    return torch.where(moves, 2 * distance / (v1 + v0) * _atanh_quotient(m, v1 / v0), NEVER)


def _whole_cells(knots_LN: Tensor, cell_LP: Tensor, ahead_LP: Tensor, to_border_LP: Tensor) -> tuple[Tensor, Tensor]:
    """How many further cells a point crosses whole, and the time that this takes, (L, P) each."""
    cells = knots_LN.shape[1] - 1
    times_LC = crossing_time(torch.full_like(knots_LN[:, 1:], 1 / cells), knots_LN[:, :-1], knots_LN[:, 1:])
    times_LCC = times_LC[:, None, :].expand(-1, cells, -1)
    # row c: sums of the times of the cells behind cell c, up to each; no differences, which would be rounded
    upward_LCC = times_LCC.triu(1).cumsum(2)
    downward_LCC = times_LCC.tril(-1).flip(2).cumsum(2).flip(2)

    points_LPC = cell_LP[:, :, None].expand(-1, -1, cells)
    order_C = torch.arange(cells, device=knots_LN.device)
    behind_LPC = torch.where(ahead_LP[:, :, None], order_C > points_LPC, order_C < points_LPC)
    sums_LPC = torch.where(ahead_LP[:, :, None], upward_LCC.gather(1, points_LPC), downward_LCC.gather(1, points_LPC))
    crossed_LP = (behind_LPC & (to_border_LP[:, :, None] + sums_LPC < 1)).sum(2)

    last_LP = torch.where(ahead_LP, cell_LP + crossed_LP, cell_LP - crossed_LP)
    taken_LP = sums_LPC.gather(2, last_LP.clamp(0, cells - 1)[:, :, None])[:, :, 0]
    return crossed_LP, torch.where(crossed_LP > 0, taken_LP, 0.0)


def exp_quotient(z: Tensor) -> Tensor:
    """(e^z - 1) / z, 1 at 0; e^(z/2) sinh(z/2) / (z/2) near 0, which has a gradient there."""
    near = z.detach().abs() < 0.2
    half = torch.where(near, z, 0.0) / 2
    far = torch.where(near, 1.0, z)
    return torch.where(near, half.exp() * _series(SINH_SERIES, half.square()), torch.expm1(far) / far)


def _atanh_quotient(m: Tensor, ratio: Tensor) -> Tensor:
    """atanh(m) / m for m = (ratio - 1) / (ratio + 1), 1 at 0; atanh(m) is half the logarithm of the ratio."""
    near = m.detach().abs() < 0.1
    small, large = torch.where(near, m, 0.0), torch.where(near, 1.0, m)
    far = torch.where(near, 1.0, ratio).log() / (2 * large)
    return torch.where(near, _series(ATANH_SERIES, small.square()), far)


def _series(coefficients: tuple[float, ...], q: Tensor) -> Tensor:
    """A polynomial in q, its highest coefficient first."""
    total = torch.full_like(q, coefficients[0])
    for coefficient in coefficients[1:]:
        total = total * q + coefficient
    return total
