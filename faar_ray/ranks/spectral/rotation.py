"""The rotation of low-rank factors to singular components: pure functions in float64.

A change is M = B^T W A, with factors A (R, I) and B (R, O) and a core W (R, R): the identity in LoRA and DoRA, a
parameter in Sinewich's bases. Every pair of invertible matrices gives the same M by other components,

    A' = P A,   B' = Q B,   W' = Q^-T W P^-1,

with Q = P^-T where W is to stay the identity. A gradient H = dL/dW = B (dL/dM) A^T becomes H' = Q H P^T, that of A
becomes P^-T dL/dA, that of B Q^-T dL/dB.

Axes: R components, I in, O out, N batches.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

SMALLEST_SINGULAR, SMALLEST_EIGENVALUE = 1e-6, 1e-8
"""Relative to the largest one; smaller ones count as this, so that a rotation can always be undone."""


@dataclass(frozen=True, slots=True)
class Factors:
    """One adapter's factors in float64."""

    A_RI: Tensor
    B_RO: Tensor
    W_RR: Tensor | None = None
    """The core; None: the identity, which it stays."""

    @property
    def core(self) -> Tensor:
        """W, (R, R)."""
        return torch.eye(len(self.A_RI)).to(self.A_RI) if self.W_RR is None else self.W_RR


@dataclass(frozen=True, slots=True)
class Rotation:
    """P and Q, and what the singular components that they lead to are."""

    P_RR: Tensor
    Q_RR: Tensor
    singular_R: Tensor
    """Singular values of what was decomposed, descending."""

    def factors(self, factors: Factors) -> Factors:
        """A', B', W'."""
        core = None if factors.W_RR is None else self.core(factors.W_RR)
        return Factors(self.P_RR @ factors.A_RI, self.Q_RR @ factors.B_RO, core)

    def core(self, W_RR: Tensor) -> Tensor:
        """Q^-T W P^-1."""
        left_RR = torch.linalg.solve(self.Q_RR.mT, W_RR)
        core_RR: Tensor = torch.linalg.solve(self.P_RR, left_RR, left=False)
        return core_RR

    def gradients(self, H_NRR: Tensor) -> Tensor:
        """Q H P^T, for one or many."""
        return self.Q_RR @ H_NRR @ self.P_RR.mT

    def ordered(self, index_R: Tensor) -> Rotation:
        """The same components in another order."""
        return Rotation(self.P_RR[index_R], self.Q_RR[index_R], self.singular_R[index_R])


def plain_rotation(factors: Factors) -> Rotation:
    """Components become singular components of M = U S V^T: A' = c V^T, B' = (S / c) U^T, c the mean norm of A's rows.

    With a core B' = d U^T and W' = S / (c d), d the mean norm of B's rows.
    """
    X_RR, s_R, _ = torch.linalg.svd(factors.A_RI, full_matrices=False)
    if factors.W_RR is None:
        _, S_R, V_RR = torch.linalg.svd((factors.B_RO.mT @ X_RR) * s_R, full_matrices=False)
        return _with_core_one((V_RR / _positive(s_R)) @ X_RR.mT, factors, S_R)

    Z_RR, t_R, _ = torch.linalg.svd(factors.B_RO, full_matrices=False)
    U_RR, S_R, V_RR = torch.linalg.svd(t_R[:, None] * (Z_RR.mT @ factors.W_RR @ X_RR) * s_R)
    P_RR, Q_RR = (V_RR / _positive(s_R)) @ X_RR.mT, (U_RR.mT / _positive(t_R)) @ Z_RR.mT
    return Rotation(_levelled(P_RR, factors.A_RI), _levelled(Q_RR, factors.B_RO), S_R)


def fisher_rotation(factors: Factors, H_NRR: Tensor) -> Rotation:
    """Components become those of the weighted decomposition L^1/2 W K^1/2 = U S V^T.

    L = E[H H^T] and K = E[H^T H] over batches, in the basis of the plain rotation: so the result does not depend on the
    basis that training ended in. To keep the first components is then the best core of lower rank in the norm
    ||L^1/2 (W - W_k) K^1/2||, the Kronecker-factored second order of the loss. Rows of A' get the mean norm of A's.
    """
    plain = plain_rotation(factors)
    there = plain.factors(factors)
    H_NRR = plain.gradients(H_NRR)
    (L_RR, L_inverse), (K_RR, K_inverse) = (_roots(x) for x in ((H_NRR @ H_NRR.mT).mean(0), (H_NRR.mT @ H_NRR).mean(0)))

    U_RR, S_R, V_RR = torch.linalg.svd(L_RR @ there.core @ K_RR)
    P_RR = V_RR @ K_inverse @ plain.P_RR
    if factors.W_RR is None:
        return _with_core_one(P_RR, factors, S_R)
    Q_RR = U_RR.mT @ L_inverse @ plain.Q_RR
    return Rotation(_levelled(P_RR, factors.A_RI), _levelled(Q_RR, factors.B_RO), S_R)


def component_gradients(rotation: Rotation, factors: Factors, H_NRR: Tensor) -> Tensor:
    """dL/dz_i = H'_ii W'_ii of a gate z on each component, per batch, (N, R); it does not depend on their scale.

    Its mean square is twice the expected rise of the loss when component i goes, to second order (Fisher's diagonal).
    H_NRR and factors are those before the rotation.
    """
    core = rotation.core(factors.core).diagonal()
    return rotation.gradients(H_NRR).diagonal(dim1=-2, dim2=-1) * core


def _with_core_one(P_RR: Tensor, factors: Factors, singular_R: Tensor) -> Rotation:
    """The rotation whose core stays the identity: Q = P^-T."""
    P_RR = _levelled(P_RR, factors.A_RI)
    return Rotation(P_RR, torch.linalg.inv(P_RR).mT, singular_R)


def _levelled(P_RR: Tensor, rows_RN: Tensor) -> Tensor:
    """P with rows such that all rows of P X have the mean norm of X's; one that is 0 is scaled as the largest is."""
    norm_R = torch.linalg.vector_norm(P_RR @ rows_RN, dim=1)
    mean, largest = torch.linalg.vector_norm(rows_RN, dim=1).mean(), norm_R.max()
    if largest == 0:
        return P_RR
    gain_R: Tensor = mean / norm_R.where(norm_R > SMALLEST_SINGULAR * largest, largest)
    return P_RR * gain_R[:, None]


def _positive(singular_R: Tensor) -> Tensor:
    """Singular values, descending, without those too small to divide by; 1 if all are 0."""
    largest = singular_R[0]
    return singular_R.clamp_min(SMALLEST_SINGULAR * largest) if largest > 0 else torch.ones_like(singular_R)


def _roots(moment_RR: Tensor) -> tuple[Tensor, Tensor]:
    """The root of a symmetric positive semidefinite matrix, and its inverse; of 0 the identity."""
    values_R, V_RR = torch.linalg.eigh(moment_RR)
    largest = values_R[-1]
    values_R = values_R.clamp_min(SMALLEST_EIGENVALUE * largest) if largest > 0 else torch.ones_like(values_R)
    return (V_RR * values_R.sqrt()) @ V_RR.mT, (V_RR * values_R.rsqrt()) @ V_RR.mT
