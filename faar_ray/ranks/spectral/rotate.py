"""An adapter in training, rotated in place: factors, core, and what the optimizer remembers of them.

Axes: R components, N batches.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Literal

import torch
from torch import Tensor, nn
from torch.optim import Optimizer

from faar_ray.adapters import LowRankFactors
from faar_ray.config.trial import SpectralConfig
from faar_ray.ranks.policy import GradientPass, RankPolicy
from faar_ray.ranks.spectral.rotation import (
    Factors,
    Rotation,
    component_gradients,
    fisher_rotation,
    plain_rotation,
)

SECOND = ("exp_avg_sq", "max_exp_avg_sq")
"""What an optimizer remembers of squared gradients; everything else of a parameter's shape is linear in gradients."""


@dataclass(frozen=True, slots=True)
class Components:
    """One adapter's components after a rotation, by descending mean square of their gradients."""

    gradient_NR: Tensor
    """dL/dz of a gate on each, per batch."""
    singular_R: Tensor
    """Singular values of what was decomposed."""

    def scores(self) -> tuple[float, ...]:
        """E over batches of (dL/dz)^2 in float32, descending."""
        return tuple(_scores(self.gradient_NR).tolist())


def rotate_all(policy: RankPolicy, how: SpectralConfig, epoch: int, optimizer: Optimizer | None) -> list[Components]:
    """Rotate all adapters of a policy in place, by the gradients that the training loop gives it."""
    if policy.gradient_pass is None:
        raise RuntimeError("a rotation needs the gradients of training batches: set `gradient_pass`")
    gates = gate_gradients(policy.adapters, policy.gradient_pass, epoch, how.score_batches)
    return [_rotated(a, H_NRR, how, optimizer) for a, H_NRR in zip(policy.adapters, gates, strict=True)]


def _rotated(adapter: LowRankFactors, H_NRR: Tensor, how: SpectralConfig, optimizer: Optimizer | None) -> Components:
    factors = factors_of(adapter)
    rotation = find_rotation(how.rotation, factors, H_NRR)
    gradient_NR = component_gradients(rotation, factors, H_NRR)
    order_R = _scores(gradient_NR).argsort(descending=True, stable=True)
    rotation = rotation.ordered(order_R)
    rotate(adapter, rotation, optimizer)
    return Components(gradient_NR[:, order_R], rotation.singular_R)


def _scores(gradient_NR: Tensor) -> Tensor:
    return gradient_NR.square().mean(0).float()  # as they are logged


def factors_of(adapter: LowRankFactors) -> Factors:
    """An adapter's factors in float64, on the CPU: R x R decompositions are quickest there."""
    core = getattr(adapter, "core", None)
    of = (None if p is None else p.detach().to("cpu", torch.float64, copy=True) for p in (*adapter.factors, core))
    return Factors(*of)  # type: ignore[arg-type]


def gate_gradients(
    adapters: Sequence[LowRankFactors], gradients: GradientPass, epoch: int, batches: int
) -> list[Tensor]:
    """H = dL/dW of every adapter, (N, R, R) in float64 on the CPU; W is the core, or stands for the identity."""
    collected: list[list[Tensor]] = [[] for _ in adapters]
    for adapter in adapters:
        adapter.clear_mask()
    for _ in gradients(epoch, batches):
        for adapter, of_adapter in zip(adapters, collected, strict=True):
            of_adapter.append(_gate_gradient(adapter))
    return [torch.stack(of_adapter).to("cpu", torch.float64) for of_adapter in collected]


def _gate_gradient(adapter: LowRankFactors) -> Tensor:
    """H_ij = <B_i, dL/dM A_j>, (R, R): the core's gradient, else <dL/dA_i, A_j>."""
    core = getattr(adapter, "core", None)
    gradient = adapter.A_RI.grad if core is None else core.grad
    if gradient is None:
        raise RuntimeError("a gradient pass gave no gradients")
    return gradient.clone() if core is not None else gradient @ adapter.A_RI.detach().mT


def find_rotation(kind: Literal["fisher", "plain"], factors: Factors, H_NRR: Tensor) -> Rotation:
    """What `spectral.rotation` names."""
    return plain_rotation(factors) if kind == "plain" else fisher_rotation(factors, H_NRR)


@torch.no_grad()
def rotate(adapter: LowRankFactors, rotation: Rotation, optimizer: Optimizer | None = None) -> None:
    """Rotate an adapter in place: the change that it makes stays, and moments follow.

    What is linear in gradients becomes what it would be if they had been rotated. Of squared gradients (Adam's second
    moment) the same matrices with squared entries are taken, as if the components' gradients were uncorrelated. `step`
    stays.
    """
    P, Q = rotation.P_RR, rotation.Q_RR
    P_gradient, Q_gradient = torch.linalg.inv(P).mT, torch.linalg.inv(Q).mT
    _apply(adapter.A_RI, optimizer, lambda A: P @ A, [P_gradient])
    _apply(adapter.B_RO, optimizer, lambda B: Q @ B, [Q_gradient])
    core = getattr(adapter, "core", None)
    if core is not None:
        _apply(core, optimizer, rotation.core, [Q, P])


def _apply(
    parameter: nn.Parameter,
    optimizer: Optimizer | None,
    of_value: Callable[[Tensor], Tensor],
    of_gradient: Sequence[Tensor],
) -> None:
    """Give a parameter its new value; moments are multiplied from the left, and by a second matrix from the right."""
    parameter.copy_(of_value(_wide(parameter)))
    state = optimizer.state.get(parameter, {}) if optimizer is not None else {}
    for name, moment in state.items():
        if torch.is_tensor(moment) and moment.shape == parameter.shape:
            left, *right = (matrix.square() for matrix in of_gradient) if name in SECOND else of_gradient
            moved = left @ _wide(moment)
            moment.copy_(moved @ right[0].mT if right else moved)


def _wide(value: Tensor) -> Tensor:
    return value.detach().to("cpu", torch.float64)
