"""Training losses as two parts: what is counted in the labels, and a batch's share of the loss, given the counts.

Counts add up over workers and over the parts of an accumulated step, before anything is divided by them; then the
shares add up to the loss of the whole step, exactly. A task without a valid pixel contributes 0, not NaN.

Axes: B batch, N channels, H W space.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor

IGNORE = 255
EDGE_POSITIVE_WEIGHT = 0.95


@dataclass(frozen=True, slots=True)
class Loss:
    """A loss that can be taken in parts."""

    counts: Callable[[Tensor], Tensor]
    """target -> (2,), float64: the normaliser, and of balanced losses the negatives."""
    share: Callable[[Tensor, Tensor, Tensor], Tensor]
    """(prediction_BNHW, target, counts of the whole step) -> scalar; shares sum to the loss."""

    def __call__(self, prediction_BNHW: Tensor, target: Tensor) -> Tensor:
        """The loss of a batch that is the whole step."""
        return self.share(prediction_BNHW, target, self.counts(target))


def _pair(normaliser: Tensor, negatives: Tensor | None = None) -> Tensor:
    return torch.stack([normaliser, normaliser * 0 if negatives is None else negatives]).double()


def _over(total: Tensor, counts_2: Tensor) -> Tensor:
    return total / counts_2[0].clamp_min(1).to(total)


def _labelled(target: Tensor) -> Tensor:
    return _pair((target != IGNORE).sum())


def _cross_entropy(logits_BNHW: Tensor, labels_BHW: Tensor, counts_2: Tensor) -> Tensor:
    total = F.cross_entropy(logits_BNHW, labels_BHW, ignore_index=IGNORE, reduction="sum")
    return _over(total, counts_2)


def _labelled_and_negative(target_B1HW: Tensor) -> Tensor:
    valid = target_B1HW != IGNORE
    return _pair(valid.sum(), ((target_B1HW <= 0.5) & valid).sum())


def _balanced_bce(logits_B1HW: Tensor, target_B1HW: Tensor, counts_2: Tensor) -> Tensor:
    return _weighted_bce(logits_B1HW, target_B1HW, counts_2, (counts_2[1] / counts_2[0].clamp_min(1)).to(logits_B1HW))


def _edge_bce(logits_B1HW: Tensor, target_B1HW: Tensor, counts_2: Tensor) -> Tensor:
    return _weighted_bce(logits_B1HW, target_B1HW, counts_2, EDGE_POSITIVE_WEIGHT)


def _weighted_bce(logits: Tensor, target: Tensor, counts_2: Tensor, positive_weight: Tensor | float) -> Tensor:
    valid = target != IGNORE
    target = target.where(valid, 0)
    weight = torch.where(target > 0.5, positive_weight, 1 - positive_weight) * valid
    return _over(F.binary_cross_entropy_with_logits(logits, target, weight, reduction="sum"), counts_2)


def _pointing(target_B3HW: Tensor) -> Tensor:
    return target_B3HW.square().sum(1, keepdim=True) > 0.25


def _pointing_components(target_B3HW: Tensor) -> Tensor:
    return _pair(3 * _pointing(target_B3HW).sum())


def _normals_l1(prediction_B3HW: Tensor, target_B3HW: Tensor, counts_2: Tensor) -> Tensor:
    error = (F.normalize(prediction_B3HW, dim=1) - target_B3HW).abs() * _pointing(target_B3HW)
    return _over(error.sum(), counts_2)


def _measured(target: Tensor) -> Tensor:
    return _known(_without_ignored(target))


def _depth_l1(prediction: Tensor, target: Tensor, counts_2: Tensor) -> Tensor:
    return _regression_l1(prediction, _without_ignored(target), counts_2)


def _without_ignored(target: Tensor) -> Tensor:
    return target.where(target != IGNORE, math.nan)


def _known(target: Tensor) -> Tensor:
    return _pair(target.isfinite().sum())


def _regression_l1(prediction: Tensor, target: Tensor, counts_2: Tensor) -> Tensor:
    known = target.isfinite()
    return _over(((prediction - target.where(known, 0)).abs() * known).sum(), counts_2)


cross_entropy = Loss(_labelled, _cross_entropy)
"""Pixel-wise cross-entropy; 255 is ignored."""
balanced_saliency_bce = Loss(_labelled_and_negative, _balanced_bce)
"""Binary cross-entropy; positives weigh negatives/total over the step, negatives the rest."""
balanced_edge_bce = Loss(_labelled, _edge_bce)
"""Binary cross-entropy; positives weigh 0.95."""
normals_l1 = Loss(_pointing_components, _normals_l1)
"""L1 between unit vectors, per component; pixels whose target is the zero vector are ignored."""
depth_l1 = Loss(_measured, _depth_l1)
"""L1 in the data's unit (m); 255 and NaN are ignored."""
regression_l1 = Loss(_known, _regression_l1)
"""L1 in the data's unit; NaN is ignored."""
