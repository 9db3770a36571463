"""The two labels that are computed from others: saliency and edges.

Shapes: N images, R pixels, I instances, H W space, 3 axes.
"""

from __future__ import annotations

import torch
from torch import Tensor

from faar_ray.data.scenes import object_table
from faar_ray.data.scenes.raycast import pixel_grid

SMALLEST_SHARE = 0.008
CENTRE_SPREAD = 0.25  # image widths
CREASE_COSINE = 0.8


def salient(instance_NR: Tensor, size: int) -> Tensor:
    """Pixels of the most salient object, large and near the middle: (N, R) bool.

    Rule: among the instances (not the room) that cover at least 0.8% of the pixels, the one with the largest
    sqrt(area) exp(-d^2 / (2 0.25^2)), d the distance of its centroid from the image's middle in image widths. An image
    without any such instance has no salient pixel.
    """
    one_hot_NIR = torch.zeros(len(instance_NR), object_table.INSTANCES, instance_NR.shape[1])
    one_hot_NIR.scatter_(1, instance_NR[:, None], 1.0)
    area_NI = one_hot_NIR.sum(-1)
    centroid_NI2 = torch.matmul(one_hot_NIR, pixel_grid(size).T) / area_NI.clamp_min(1)[..., None]
    score_NI = area_NI.sqrt() * torch.exp(-centroid_NI2.square().sum(-1) / (2 * CENTRE_SPREAD**2))
    score_NI[area_NI < SMALLEST_SHARE * instance_NR.shape[1]] = 0
    score_NI[:, 0] = 0  # the room
    best_N, winner_N = score_NI.max(1)
    return (instance_NR == winner_N[:, None]) & (best_N > 0)[:, None]


def edges(label_NHW: Tensor, normal_N3HW: Tensor) -> Tensor:
    """Pixels whose left or upper neighbour has another label or a normal that differs by more than 37 degrees: bool."""
    edge = torch.zeros_like(label_NHW, dtype=torch.bool)
    edge[:, 1:] |= _differ(label_NHW[:, 1:], label_NHW[:, :-1], normal_N3HW[:, :, 1:], normal_N3HW[:, :, :-1])
    edge[..., 1:] |= _differ(label_NHW[..., 1:], label_NHW[..., :-1], normal_N3HW[..., 1:], normal_N3HW[..., :-1])
    return edge


def _differ(label: Tensor, other: Tensor, normal: Tensor, other_normal: Tensor) -> Tensor:
    return (label != other) | ((normal * other_normal).sum(1) < CREASE_COSINE)
