"""Statistics of sine-modulated bases: how much the tasks' weights differ, and their effective ranks.

Axes: T tasks, P taps, O out, I in.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence

import torch
from torch import Tensor

from faar_ray.adapters.sinewich.sine_awb import SineWeights
from faar_ray.records import SineRecord


@torch.no_grad()
def measure(
    layer: SineWeights, epoch: int = 0, gradient_cosines: Sequence[float | None] | None = None
) -> Iterator[SineRecord]:
    """All tasks of a layer, at its current ranks; statistics in float64.

    `gradient_cosines` has one per task, where they were measured.
    """
    bases, kernels, site = layer.bases_of_tasks(), layer.kernels().double(), layer.site
    omega_T = layer.clock().tolist()
    cosines = mean_cosines(kernels.flatten(1))
    of_base = {id(base): _statistics(base.matrix().double()) for base in bases}
    for t, (task, base) in enumerate(zip(layer.clock.tasks, bases, strict=True)):
        mean, std, skew, of_M = of_base[id(base)]
        yield SineRecord(
            epoch=epoch, stage=site.stage, block=site.block, layer=site.layer, task=task,
            omega=omega_T[t], mean=mean, std=std, skew=skew, omega_std=abs(omega_T[t]) * std, rank=base.rank,
            effective_rank=of_M, effective_rank_task=effective_rank(joined(kernels[t])), cosine=cosines[t],
            gradient_cosine=None if gradient_cosines is None else gradient_cosines[t],
        )  # fmt: skip


def _statistics(matrix_POI: Tensor) -> tuple[float, float, float, float]:
    centred = matrix_POI - matrix_POI.mean()
    std = centred.pow(2).mean().sqrt()
    skew = centred.pow(3).mean() / std.pow(3) if std > 0 else torch.zeros(())
    return float(matrix_POI.mean()), float(std), float(skew), effective_rank(joined(matrix_POI))


def joined(kernel_POI: Tensor) -> Tensor:
    """All taps side by side, (O, P I)."""
    return kernel_POI.movedim(0, 1).flatten(1)


def effective_rank(matrix: Tensor) -> float:
    """exp of the entropy of the singular values' shares (Roy and Vetterli 2007); 0 for a matrix of zeros.

    nan where an entry is not finite: a diverged trial fails by its loss, not by an error raised here.
    """
    if not matrix.isfinite().all():
        return math.nan
    wide = matrix if matrix.shape[0] <= matrix.shape[1] else matrix.t()
    values = torch.linalg.eigvalsh(wide @ wide.t()).clamp_min(0).sqrt()
    total = values.sum()
    if total == 0:
        return 0.0
    shares = values / total
    return float(torch.special.entr(shares).sum().exp())


def mean_cosines(vectors_TN: Tensor) -> list[float | None]:
    """Each vector's mean cosine with all others; 1 where all are 0, as they are equal."""
    tasks = len(vectors_TN)
    if tasks == 1:
        return [None]
    gram_TT = cosine_matrix(vectors_TN)
    cosines: Sequence[float] = ((gram_TT.sum(1) - 1) / (tasks - 1)).tolist()
    return list(cosines)


def cosine_matrix(vectors_TN: Tensor) -> Tensor:
    """Pairwise cosines, (T, T), 1 on the diagonal; two vectors of 0 count as equal, one as orthogonal to the rest."""
    norm_T = vectors_TN.norm(dim=1)
    dead_T = norm_T == 0
    unit_TN = vectors_TN / norm_T.where(~dead_T, 1.0)[:, None]
    gram_TT: Tensor = unit_TN @ unit_TN.t() + (dead_T[:, None] & dead_T[None, :]).to(vectors_TN)
    gram_TT.fill_diagonal_(1.0)
    return gram_TT
