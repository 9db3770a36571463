"""Training losses, each as (sum, normaliser), so that workers can add both up before dividing.

A task without a valid pixel in the batch has normaliser 0 and contributes 0, not NaN.
Axes: B batch, N channels, H W space.
"""

from __future__ import annotations

from collections.abc import Callable

import torch
import torch.nn.functional as F
from torch import Tensor

IGNORE = 255
EDGE_POSITIVE_WEIGHT = 0.95

Loss = Callable[[Tensor, Tensor], tuple[Tensor, Tensor]]
"""(prediction_BNHW, target) -> (sum over valid pixels, their number), two scalars."""


def mean_loss(total: Tensor, normaliser: Tensor) -> Tensor:
    """The mean over valid pixels, 0 where there are none."""
    return total / normaliser.clamp_min(1)


def cross_entropy(logits_BNHW: Tensor, labels_BHW: Tensor) -> tuple[Tensor, Tensor]:
    """Pixel-wise cross-entropy; 255 is ignored."""
    total = F.cross_entropy(logits_BNHW, labels_BHW, ignore_index=IGNORE, reduction="sum")
    return total, (labels_BHW != IGNORE).sum()


def _weighted_bce(logits: Tensor, target: Tensor, positive_weight: Tensor | float) -> tuple[Tensor, Tensor]:
    valid = target != IGNORE
    target = target.where(valid, 0)
    weight = torch.where(target > 0.5, positive_weight, 1 - positive_weight) * valid
    return F.binary_cross_entropy_with_logits(logits, target, weight, reduction="sum"), valid.sum()


def balanced_saliency_bce(logits_B1HW: Tensor, target_B1HW: Tensor) -> tuple[Tensor, Tensor]:
    """Binary cross-entropy; positives weigh negatives/total over the batch, negatives the rest."""
    valid = target_B1HW != IGNORE
    negatives = ((target_B1HW <= 0.5) & valid).sum() / valid.sum().clamp_min(1)
    return _weighted_bce(logits_B1HW, target_B1HW, negatives)


def balanced_edge_bce(logits_B1HW: Tensor, target_B1HW: Tensor) -> tuple[Tensor, Tensor]:
    """Binary cross-entropy; positives weigh 0.95."""
    return _weighted_bce(logits_B1HW, target_B1HW, EDGE_POSITIVE_WEIGHT)


def normals_l1(prediction_B3HW: Tensor, target_B3HW: Tensor) -> tuple[Tensor, Tensor]:
    """L1 between unit vectors, per component; pixels whose target is the zero vector are ignored."""
    valid_B1HW = target_B3HW.square().sum(1, keepdim=True) > 0.25
    error = (F.normalize(prediction_B3HW, dim=1) - target_B3HW).abs() * valid_B1HW
    return error.sum(), 3 * valid_B1HW.sum()


def depth_l1(prediction_B1HW: Tensor, target_B1HW: Tensor) -> tuple[Tensor, Tensor]:
    """L1 in the data's unit (m); 255 is ignored."""
    valid = target_B1HW != IGNORE
    return ((prediction_B1HW - target_B1HW).abs() * valid).sum(), valid.sum()
