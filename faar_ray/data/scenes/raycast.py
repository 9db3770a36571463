"""The first hit of each ray of a camera.

Shapes: N images, P primitives, R rays (pixels, row by row), H W space, 3 axes; metres.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor
from torch.nn import functional as F

from faar_ray.data.scenes import object_table
from faar_ray.data.scenes.primitives import MISS, Primitive
from faar_ray.data.scenes.scene_layout import Camera, Scene


@dataclass(frozen=True)
class Rays:
    """Unit directions in camera and in world axes, (N, 3, R) both."""

    camera_N3R: Tensor
    world_N3R: Tensor


@dataclass(frozen=True)
class Hits:
    """slot_NR: index into `SLOTS`; distance_NR along the ray; point_NR3 and unit normal_NR3 in world axes."""

    slot_NR: Tensor
    distance_NR: Tensor
    point_NR3: Tensor
    normal_NR3: Tensor


def pixel_grid(size: int) -> Tensor:
    """Pixel centres in image widths from the middle, x right and y down: (2, size * size)."""
    centre = (torch.arange(size) + 0.5) / size - 0.5
    y, x = torch.meshgrid(centre, centre, indexing="ij")
    return torch.stack([x.reshape(-1), y.reshape(-1)])


def camera_rays(camera: Camera, size: int) -> Rays:
    """One ray through each pixel centre."""
    grid_2R = pixel_grid(size)
    images, rays = len(camera.focal_N), grid_2R.shape[1]
    plane = torch.cat([grid_2R.expand(images, 2, rays), camera.focal_N[:, None, None].expand(images, 1, rays)], 1)
    unit = plane / plane.square().sum(1, keepdim=True).sqrt()
    return Rays(unit, torch.bmm(camera.axes_N33.transpose(1, 2), unit))


def first_hits(scene: Scene, rays: Rays) -> Hits:
    """The nearest active primitive along every ray, with its normal at the hit."""
    origin, world = scene.camera.position_N3, rays.world_N3R
    distance, slot = _nearest(scene, (*scene.solids, scene.room), origin, world)
    point = (origin[..., None] + world * distance[:, None]).transpose(1, 2)
    return Hits(slot, distance, point, _normals(scene, point, slot))


def _nearest(scene: Scene, kinds: tuple[Primitive, ...], origin_N3: Tensor, ray_N3R: Tensor) -> tuple[Tensor, Tensor]:
    """Distance and slot of the first hit among these kinds, (N, R) each: a running minimum, kind by kind."""
    inactive_NP1 = torch.where(scene.active_NP, 0.0, MISS)[..., None]
    best_NR = torch.full((len(origin_N3), ray_N3R.shape[2]), 2 * MISS)
    slot_NR, first = torch.zeros_like(best_NR, dtype=torch.long), 0
    for kind, count in zip(kinds, object_table.COUNTS, strict=False):
        nearest, which = (kind.hits(origin_N3, ray_N3R) + inactive_NP1[:, first : first + count]).min(1)
        slot_NR = torch.where(nearest < best_NR, which + first, slot_NR)
        best_NR, first = torch.minimum(best_NR, nearest), first + count
    return best_NR, slot_NR


def _normals(scene: Scene, point_NR3: Tensor, slot_NR: Tensor) -> Tensor:
    normal, first = torch.zeros_like(point_NR3), 0
    for kind, count in zip((*scene.solids, scene.room), object_table.COUNTS, strict=True):
        of_this_kind = (slot_NR >= first) & (slot_NR < first + count)
        kind_normal = kind.normals(point_NR3, (slot_NR - first).clamp(0, count - 1))
        normal = torch.where(of_this_kind[..., None], kind_normal, normal)
        first += count
    return F.normalize(normal, dim=-1)


def is_lit(scene: Scene, towards_N3R: Tensor, distance_NR: Tensor) -> Tensor:
    """Whether the lamp lights the points at these unit directions and distances from it: (N, R) bool.

    The ray starts at the lamp, so rounding cannot make a surface shade itself. The room is convex and casts no shadow.
    """
    nearest, _ = _nearest(scene, scene.solids, scene.light.position_N3, towards_N3R)
    return nearest > distance_NR - 0.02
