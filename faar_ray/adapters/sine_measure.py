"""What became of sine-modulated bases: do the tasks' weights differ, and is their rank what the theory promises?

Axes: T tasks, P taps, O out, I in.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from faar_ray.adapters.sine_awb import SineWeights


@dataclass(frozen=True, slots=True)
class SineMeasure:
    """One layer, one task."""

    task: str
    omega: float
    mean: float
    """Of M's entries; the theory assumes 0, and a symmetric density."""
    std: float
    skew: float
    rank: int
    """Components of M."""
    effective_rank: float
    """Of M."""
    effective_rank_task: float
    """Of the task's weights."""
    cosine: float | None
    """Mean with every other task's weights; None with one task."""


@torch.no_grad()
def measure(layer: SineWeights) -> Iterator[SineMeasure]:
    """All tasks of a layer, at its current ranks; statistics in float64."""
    bases, kernels = layer.bases_of_tasks(), layer.kernels().double()
    omega_T = layer.clock().tolist()
    cosines = mean_cosines(kernels.flatten(1))
    of_base = {id(base): _statistics(base.matrix().double()) for base in bases}
    for t, (task, base) in enumerate(zip(layer.clock.tasks, bases, strict=True)):
        mean, std, skew, of_M = of_base[id(base)]
        yield SineMeasure(
            task, omega_T[t], mean, std, skew, base.rank, of_M, effective_rank(joined(kernels[t])), cosines[t]
        )


def _statistics(matrix_POI: Tensor) -> tuple[float, float, float, float]:
    centred = matrix_POI - matrix_POI.mean()
    std = centred.pow(2).mean().sqrt()
    skew = centred.pow(3).mean() / std.pow(3) if std > 0 else torch.zeros(())
    return float(matrix_POI.mean()), float(std), float(skew), effective_rank(joined(matrix_POI))


def joined(kernel_POI: Tensor) -> Tensor:
    """All taps side by side, (O, P I)."""
    return kernel_POI.movedim(0, 1).flatten(1)


def effective_rank(matrix: Tensor) -> float:
    """exp of the entropy of the singular values' shares (Roy and Vetterli 2007); 0 for a matrix of zeros."""
    wide = matrix if matrix.shape[0] <= matrix.shape[1] else matrix.t()
    values = torch.linalg.eigvalsh(wide @ wide.t()).clamp_min(0).sqrt()
    total = values.sum()
    if total == 0:
        return 0.0
    shares = values / total
    return float(torch.special.entr(shares).sum().exp())


def mean_cosines(vectors_TN: Tensor) -> list[float | None]:
    """Each vector's mean cosine with all others; equal to 1 where all are 0: nothing tells them apart."""
    tasks = len(vectors_TN)
    if tasks == 1:
        return [None]
    gram_TT = cosine_matrix(vectors_TN)
    found: Sequence[float] = ((gram_TT.sum(1) - 1) / (tasks - 1)).tolist()
    return list(found)


def cosine_matrix(vectors_TN: Tensor) -> Tensor:
    """Pairwise cosines, (T, T), 1 on the diagonal; two vectors of 0 count as equal, one as orthogonal to the rest."""
    norm_T = vectors_TN.norm(dim=1)
    dead_T = norm_T == 0
    unit_TN = vectors_TN / norm_T.where(~dead_T, 1.0)[:, None]
    gram_TT = unit_TN @ unit_TN.t() + (dead_T[:, None] & dead_T[None, :]).to(vectors_TN)
    return gram_TT.fill_diagonal_(1.0)
