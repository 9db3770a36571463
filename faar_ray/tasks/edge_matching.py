"""odsF of edges by the rules of BSDS500: thin predictions, matched one to one with the true edge within a distance.

Axes: B batch, H W space.
"""

from __future__ import annotations

import math

import numpy as np
import torch
from numpy.typing import NDArray
from scipy.sparse import csr_array
from scipy.sparse.csgraph import maximum_bipartite_matching
from scipy.spatial import cKDTree
from skimage.morphology import thin
from torch import Tensor
from torchmetrics import Metric

from faar_ray.tasks.losses import IGNORE

THRESHOLDS = np.arange(1, 100) / 100
TOLERANCE = 0.0075
"""Largest distance of a match, as a share of the image's diagonal."""
Pixels = NDArray[np.bool_]


class EdgeOdsF(Metric):
    """F at the threshold that is best for the whole set (odsF), percent; counts are pooled over images.

    The label is taken as it is, as in BSDS500; predicted pixels where it is ignored do not count.
    """

    full_state_update = False
    matched: Tensor
    predicted: Tensor
    true: Tensor

    def __init__(self) -> None:
        super().__init__()
        for name in ("matched", "predicted"):
            self.add_state(name, torch.zeros(len(THRESHOLDS), dtype=torch.int64), dist_reduce_fx="sum")
        self.add_state("true", torch.tensor(0), dist_reduce_fx="sum")

    def update(self, logits_B1HW: Tensor, target_B1HW: Tensor) -> None:
        """Add a batch; counted on the CPU."""
        probabilities = logits_B1HW.detach().cpu().double().sigmoid().numpy()[:, 0]
        for probability, target in zip(probabilities, target_B1HW.cpu().numpy()[:, 0], strict=True):
            valid = target != IGNORE
            if not valid.any():
                continue
            true = (target > 0.5) & valid
            counts = torch.tensor(counts_at_thresholds(probability, true, valid), device=self.matched.device)
            self.matched += counts[0]
            self.predicted += counts[1]
            self.true += int(true.sum())

    def compute(self) -> dict[str, Tensor]:
        """`ods_f`: NaN where no pixel of the set is an edge."""
        f = 200 * self.matched.double() / (self.predicted + self.true)  # 2PR / (P + R)
        return {"ods_f": f.max().where(self.true > 0, math.nan)}


def counts_at_thresholds(probability: NDArray[np.float64], true: Pixels, valid: Pixels) -> tuple[list[int], list[int]]:
    """Matched and predicted edge pixels of an image at each of `THRESHOLDS`; arrays (H, W)."""
    matched: list[int] = []
    predicted: list[int] = []
    above_before = -1
    for threshold in THRESHOLDS:
        edge = probability >= threshold
        above = int(edge.sum())
        if above == above_before:  # sets at rising thresholds contain each other: it is the same one
            matched.append(matched[-1])
            predicted.append(predicted[-1])
            continue
        above_before = above

        edge = thin(edge) & valid  # type: ignore[no-untyped-call]
        predicted.append(int(edge.sum()))
        matched.append(matches(edge, true))
    return matched, predicted


def matches(predicted: Pixels, true: Pixels) -> int:
    """Pairs of one predicted and one true pixel within the tolerance, as many as there can be; no pixel is in two."""
    points_P2, points_T2 = np.argwhere(predicted), np.argwhere(true)
    if not len(points_P2) or not len(points_T2):
        return 0
    radius = TOLERANCE * math.hypot(*true.shape) + 1e-9  # a distance that equals the tolerance is within
    near = cKDTree(points_P2).sparse_distance_matrix(cKDTree(points_T2), radius, output_type="ndarray")

    pairs = np.ones(len(near), np.int8), (near["i"], near["j"])
    graph = csr_array(pairs, shape=(len(points_P2), len(points_T2)))
    return int((maximum_bipartite_matching(graph) >= 0).sum())
