"""Rotations against decompositions of the whole change, by numpy and scipy, and against autograd."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import scipy.linalg
import torch
from torch import Tensor

from faar_ray.ranks.spectral.rotation import (
    Factors,
    Rotation,
    component_gradients,
    fisher_rotation,
    plain_rotation,
)

RANK, INPUTS, OUTPUTS, BATCHES = 5, 11, 8, 40
KINDS = ("plain", "fisher")
CORES = (False, True)


def drawn(core: bool, *, seed: int = 0) -> tuple[Factors, Tensor]:
    """Factors of no special basis, and gradients dL/dM of N batches, whose entries differ in size."""
    generator = torch.Generator().manual_seed(seed)

    def normal(*shape: int) -> Tensor:
        return torch.randn(*shape, generator=generator, dtype=torch.float64)

    A_RI, B_RO = normal(RANK, INPUTS), normal(RANK, OUTPUTS) * torch.logspace(0, -2, OUTPUTS)
    factors = Factors(A_RI, B_RO, normal(RANK, RANK) if core else None)
    return factors, normal(BATCHES, OUTPUTS, INPUTS) * torch.logspace(0, -1.5, INPUTS)


def change(factors: Factors) -> Tensor:
    return factors.B_RO.mT @ factors.core @ factors.A_RI


def gates(factors: Factors, G_NOI: Tensor) -> Tensor:
    return factors.B_RO @ G_NOI @ factors.A_RI.mT


def rotation_of(kind: str, factors: Factors, G_NOI: Tensor) -> Rotation:
    return plain_rotation(factors) if kind == "plain" else fisher_rotation(factors, gates(factors, G_NOI))


def scores_of(rotation: Rotation, factors: Factors, G_NOI: Tensor) -> Tensor:
    return component_gradients(rotation, factors, gates(factors, G_NOI)).square().mean(0)


def truncated(factors: Factors, k: int) -> Any:
    core = factors.core[:k, :k]
    return (factors.B_RO[:k].mT @ core @ factors.A_RI[:k]).numpy()


@pytest.mark.parametrize("core", CORES)
@pytest.mark.parametrize("kind", KINDS)
def test_the_change_stays_and_the_core_is_diagonal(kind: str, core: bool) -> None:
    factors, G_NOI = drawn(core)
    rotation = rotation_of(kind, factors, G_NOI)
    rotated = rotation.factors(factors)
    torch.testing.assert_close(change(rotated), change(factors), rtol=1e-10, atol=1e-10)
    W_RR = rotation.core(factors.core)
    torch.testing.assert_close(W_RR, torch.diag(W_RR.diagonal()), rtol=0, atol=1e-10)
    if not core:
        assert rotated.W_RR is None
        torch.testing.assert_close(W_RR, torch.eye(RANK, dtype=torch.float64), rtol=0, atol=1e-10)
    assert (rotated.A_RI - factors.A_RI).abs().max() > 0.1


@pytest.mark.parametrize("core", CORES)
def test_the_first_plain_components_are_the_truncated_svd_of_the_whole_change(core: bool) -> None:
    factors, _ = drawn(core)
    rotation = plain_rotation(factors)
    rotated = rotation.factors(factors)
    U, S, V = np.linalg.svd(change(factors).numpy(), full_matrices=False)
    np.testing.assert_allclose(rotation.singular_R, S[:RANK], rtol=1e-10)
    for k in range(1, RANK + 1):
        np.testing.assert_allclose(truncated(rotated, k), (U[:, :k] * S[:k]) @ V[:k], rtol=0, atol=1e-10)
    norm_R = torch.linalg.vector_norm(rotated.A_RI, dim=1)
    torch.testing.assert_close(norm_R, torch.linalg.vector_norm(factors.A_RI, dim=1).mean().expand(RANK))


@pytest.mark.parametrize("core", CORES)
def test_the_first_fisher_components_are_the_best_core_in_the_weighted_norm(core: bool) -> None:
    """By scipy's matrix roots and numpy's decomposition, in the basis of numpy's plain singular vectors."""
    factors, G_NOI = drawn(core)
    rotation = fisher_rotation(factors, gates(factors, G_NOI))
    rotated = rotation.factors(factors)

    there = plain_rotation(factors).factors(factors)
    A, B, W, G = (x.numpy() for x in (there.A_RI, there.B_RO, there.core, G_NOI))
    H = B @ G @ A.T
    L, K = np.mean([h @ h.T for h in H], axis=0), np.mean([h.T @ h for h in H], axis=0)
    L_root, K_root = scipy.linalg.sqrtm(L), scipy.linalg.sqrtm(K)
    U, S, V = np.linalg.svd(L_root @ W @ K_root)
    np.testing.assert_allclose(rotation.singular_R, S, rtol=1e-8)
    np.testing.assert_allclose(np.sort(scipy.linalg.eigvals(L @ W @ K @ W.T).real)[::-1], S**2, rtol=1e-6)
    for k in range(1, RANK):
        best = np.linalg.solve(L_root, (U[:, :k] * S[:k]) @ V[:k]) @ np.linalg.inv(K_root)
        np.testing.assert_allclose(truncated(rotated, k), B.T @ best @ A, rtol=0, atol=1e-8)
        assert np.linalg.norm(L_root @ (W - best) @ K_root) == pytest.approx(np.sqrt((S[k:] ** 2).sum()), rel=1e-6)


@pytest.mark.parametrize("core", CORES)
@pytest.mark.parametrize("kind", KINDS)
def test_rotating_twice_is_rotating_once_up_to_signs(kind: str, core: bool) -> None:
    factors, G_NOI = drawn(core)
    once = rotation_of(kind, factors, G_NOI).factors(factors)
    again = rotation_of(kind, once, G_NOI)
    torch.testing.assert_close(again.P_RR.abs(), torch.eye(RANK, dtype=torch.float64), rtol=0, atol=1e-8)
    torch.testing.assert_close(again.Q_RR.abs(), torch.eye(RANK, dtype=torch.float64), rtol=0, atol=1e-8)


@pytest.mark.parametrize("core", CORES)
@pytest.mark.parametrize("kind", KINDS)
def test_the_basis_that_training_ended_in_does_not_matter(kind: str, core: bool) -> None:
    factors, G_NOI = drawn(core)
    P_RR, Q_RR = drawn(True, seed=1)[0].core, drawn(True, seed=2)[0].core
    mixed = Rotation(P_RR, Q_RR if core else torch.linalg.inv(P_RR).mT, torch.ones(RANK)).factors(factors)
    ours, theirs = (rotation_of(kind, f, G_NOI).factors(f) for f in (factors, mixed))
    for k in range(1, RANK):
        np.testing.assert_allclose(truncated(ours, k), truncated(theirs, k), rtol=0, atol=1e-8)
    scores = [scores_of(rotation_of(kind, f, G_NOI), f, G_NOI) for f in (factors, mixed)]
    torch.testing.assert_close(*scores, rtol=1e-6, atol=1e-12)


@pytest.mark.parametrize("core", CORES)
@pytest.mark.parametrize("kind", KINDS)
def test_scores_are_mean_squared_derivatives_by_a_gate_on_each_component(kind: str, core: bool) -> None:
    factors, G_NOI = drawn(core)
    rotation = rotation_of(kind, factors, G_NOI)
    rotated = rotation.factors(factors)
    squares = torch.zeros(RANK, dtype=torch.float64)
    for G_OI in G_NOI:
        gate_R = torch.ones(RANK, dtype=torch.float64, requires_grad=True)
        loss = (G_OI * (rotated.B_RO.mT @ (rotated.core * gate_R) @ rotated.A_RI)).sum()
        squares += torch.autograd.grad(loss, gate_R)[0].square() / BATCHES
    scores = scores_of(rotation, factors, G_NOI)
    torch.testing.assert_close(scores, squares, rtol=1e-8, atol=1e-12)
    assert scores.max() > 3 * scores.min()


@pytest.mark.parametrize("core", CORES)
@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("dead", ["B", "A", "B's last row", "a row twice", "gradients", "all"])
def test_what_is_dead_gives_numbers_and_the_same_change(dead: str, kind: str, core: bool) -> None:
    factors, G_NOI = drawn(core)
    A_RI, B_RO = factors.A_RI.clone(), factors.B_RO.clone()
    if dead in ("B", "all"):
        B_RO.zero_()
    if dead in ("A", "all"):
        A_RI.zero_()
    if dead == "B's last row":
        B_RO[-1] = 0
    if dead == "a row twice":
        A_RI[1], B_RO[1] = A_RI[0], B_RO[0]
    if dead in ("gradients", "all"):
        G_NOI = torch.zeros_like(G_NOI)
    factors = Factors(A_RI, B_RO, factors.W_RR)
    rotation = rotation_of(kind, factors, G_NOI)
    rotated = rotation.factors(factors)
    scores = scores_of(rotation, factors, G_NOI)
    for value in (rotation.P_RR, rotation.Q_RR, rotated.A_RI, rotated.B_RO, rotated.core, scores):
        assert value.isfinite().all()
    torch.testing.assert_close(change(rotated), change(factors), rtol=1e-8, atol=1e-8)
    for matrix in (rotation.P_RR, rotation.Q_RR):  # a rotation can be undone: moments need its inverse
        assert torch.linalg.cond(matrix) < 1e11


def test_the_order_of_components_can_be_changed_afterwards() -> None:
    factors, G_NOI = drawn(core=True)
    rotation = rotation_of("fisher", factors, G_NOI)
    index_R = torch.tensor([3, 1, 4, 0, 2])
    rotated = rotation.ordered(index_R).factors(factors)
    torch.testing.assert_close(change(rotated), change(factors), rtol=1e-10, atol=1e-10)
    torch.testing.assert_close(rotated.A_RI, rotation.factors(factors).A_RI[index_R])
