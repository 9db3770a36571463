"""Ray intersections and outward normals of the five kinds of primitive.

Shapes: N images, R rays, K primitives of one kind, 3 world axes (x right, y up, z into the room); metres.
`hits` returns the distance of the first hit along unit rays, MISS where there is none: (N, K, R).
`normals` takes the points hit and which of the K was hit there, and returns outward vectors (N, R, 3), not normalised.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Protocol

import torch
from torch import Tensor
from torch.nn import functional as F

MISS = 1e9
NEAREST = 1e-3  # hits closer than this are the surface the ray starts on
TINY = 1e-6


class Primitive(Protocol):
    """A solid that rays can hit."""

    def hits(self, origin_N3: Tensor, ray_N3R: Tensor) -> Tensor:
        """Distances (N, K, R) along unit rays."""

    def normals(self, point_NR3: Tensor, which_NR: Tensor) -> Tensor:
        """Outward vectors (N, R, 3) at the points, of any length."""


def pick(table_NKx: Tensor, which_NR: Tensor) -> Tensor:
    """Rows of a per-image table: (N, K, ...) and (N, R) give (N, R, ...)."""
    image_N1 = torch.arange(len(table_NKx))[:, None]
    return table_NKx[image_N1, which_NR]


def _off_zero(x: Tensor) -> Tensor:
    return torch.where(x.abs() < TINY, torch.full_like(x, TINY), x)


def _or_miss(t: Tensor, hit: Tensor) -> Tensor:
    return torch.where(hit & (t > NEAREST), t, MISS)


@dataclass(frozen=True)
class Spheres:
    """centre_NK3, radius_NK."""

    centre_NK3: Tensor
    radius_NK: Tensor

    def hits(self, origin_N3: Tensor, ray_N3R: Tensor) -> Tensor:
        """|o + t d - c| = r, the smaller root."""
        offset_NK3 = origin_N3[:, None] - self.centre_NK3
        b = torch.bmm(offset_NK3, ray_N3R)
        c = offset_NK3.square().sum(-1) - self.radius_NK.square()
        discriminant = b * b - c[..., None]
        return _or_miss(-b - discriminant.clamp_min(0).sqrt(), discriminant > 0)

    def normals(self, point_NR3: Tensor, which_NR: Tensor) -> Tensor:
        """Away from the centre."""
        return point_NR3 - pick(self.centre_NK3, which_NR)


@dataclass(frozen=True)
class Capsules:
    """Segments start_NK3 to end_NK3 with radius_NK around them: a tube with two half balls."""

    start_NK3: Tensor
    end_NK3: Tensor
    radius_NK: Tensor

    def hits(self, origin_N3: Tensor, ray_N3R: Tensor) -> Tensor:
        """The endless tube first; where its hit lies past an end, the ball at that end."""
        axis = self.end_NK3 - self.start_NK3
        from_start = origin_N3[:, None] - self.start_NK3
        length2 = axis.square().sum(-1)[..., None]
        along = (axis * from_start).sum(-1)[..., None]
        start2 = from_start.square().sum(-1)[..., None]
        radius2 = self.radius_NK.square()[..., None]
        axis_ray, start_ray = torch.bmm(axis, ray_N3R), torch.bmm(from_start, ray_N3R)
        a = length2 - axis_ray * axis_ray
        b = length2 * start_ray - along * axis_ray
        c = length2 * start2 - along * along - radius2 * length2
        discriminant = b * b - a * c
        t_tube = (-b - discriminant.clamp_min(0).sqrt()) / a.clamp_min(1e-9)
        height = along + t_tube * axis_ray  # 0 at the start, length2 at the end
        t_ball = self._ball(origin_N3, ray_N3R, start_ray, start2, at_start=height <= 0)
        inside = (height > 0) & (height < length2)
        return _or_miss(torch.where(inside, t_tube, t_ball), discriminant >= 0)

    def _ball(
        self, origin_N3: Tensor, ray_N3R: Tensor, start_ray: Tensor, start2: Tensor, *, at_start: Tensor
    ) -> Tensor:
        from_end = origin_N3[:, None] - self.end_NK3
        b = torch.where(at_start, start_ray, torch.bmm(from_end, ray_N3R))
        distance2 = torch.where(at_start, start2, from_end.square().sum(-1)[..., None])
        discriminant = b * b - distance2 + self.radius_NK.square()[..., None]
        return torch.where(discriminant > 0, -b - discriminant.clamp_min(0).sqrt(), MISS)

    def normals(self, point_NR3: Tensor, which_NR: Tensor) -> Tensor:
        """Away from the nearest point of the segment."""
        start, end = pick(self.start_NK3, which_NR), pick(self.end_NK3, which_NR)
        axis, offset = end - start, point_NR3 - start
        share = (offset * axis).sum(-1) / axis.square().sum(-1).clamp_min(1e-9)
        return offset - share.clamp(0, 1)[..., None] * axis


@dataclass(frozen=True)
class Cylinders:
    """Upright, standing on the floor: foot_NK2 (x, z), radius_NK, height_NK."""

    foot_NK2: Tensor
    radius_NK: Tensor
    height_NK: Tensor

    def hits(self, origin_N3: Tensor, ray_N3R: Tensor) -> Tensor:
        """Where the ray is inside the endless tube and between floor and top at once."""
        dx, dy, dz = ray_N3R[:, 0:1], _off_zero(ray_N3R[:, 1:2]), ray_N3R[:, 2:3]
        offset_NK2 = origin_N3[:, None, ::2] - self.foot_NK2
        a = (dx * dx + dz * dz).clamp_min(1e-9)
        b = offset_NK2[..., 0:1] * dx + offset_NK2[..., 1:2] * dz
        c = (offset_NK2.square().sum(-1) - self.radius_NK.square())[..., None]
        discriminant = b * b - a * c
        root = discriminant.clamp_min(0).sqrt()
        at_floor = -origin_N3[:, 1, None, None] / dy
        at_top = (self.height_NK - origin_N3[:, 1:2])[..., None] / dy
        enter = torch.maximum((-b - root) / a, torch.minimum(at_floor, at_top))
        leave = torch.minimum((-b + root) / a, torch.maximum(at_floor, at_top))
        return _or_miss(enter, (discriminant > 0) & (enter < leave))

    def normals(self, point_NR3: Tensor, which_NR: Tensor) -> Tensor:
        """Up on the cap, away from the axis on the side."""
        foot = pick(self.foot_NK2, which_NR)
        side = torch.stack([point_NR3[..., 0] - foot[..., 0], 0 * foot[..., 0], point_NR3[..., 2] - foot[..., 1]], -1)
        on_cap = (point_NR3[..., 1] - pick(self.height_NK, which_NR)).abs() < 1e-3
        return torch.where(on_cap[..., None], torch.tensor([0.0, 1.0, 0.0]), side)


@dataclass(frozen=True)
class Boxes:
    """centre_NK3, half_NK3 (half edge lengths), turn_NK (radians about y)."""

    centre_NK3: Tensor
    half_NK3: Tensor
    turn_NK: Tensor

    def hits(self, origin_N3: Tensor, ray_N3R: Tensor) -> Tensor:
        """Slab test in the box's own axes."""
        cos, sin = self.turn_NK.cos(), self.turn_NK.sin()
        origin = _turned(origin_N3[:, None] - self.centre_NK3, cos, sin)
        dx, dy, dz = ray_N3R[:, 0:1], ray_N3R[:, 1:2], ray_N3R[:, 2:3]
        rays = (cos[..., None] * dx + sin[..., None] * dz, dy, cos[..., None] * dz - sin[..., None] * dx)
        enter, leave = torch.tensor(-MISS), torch.tensor(MISS)
        for axis, ray in enumerate(rays):
            slowness = 1 / _off_zero(ray)
            middle = -origin[..., axis, None] * slowness
            reach = self.half_NK3[..., axis, None] * slowness.abs()
            enter, leave = torch.maximum(enter, middle - reach), torch.minimum(leave, middle + reach)
        return _or_miss(enter, enter < leave)

    def normals(self, point_NR3: Tensor, which_NR: Tensor) -> Tensor:
        """The axis on which the point is, relatively, farthest out."""
        turn = pick(self.turn_NK, which_NR)
        local = _turned(point_NR3 - pick(self.centre_NK3, which_NR), turn.cos(), turn.sin())
        share = local / pick(self.half_NK3, which_NR)
        face = F.one_hot(share.abs().argmax(-1), 3) * share.sign()
        return _turned(face, turn.cos(), -turn.sin())


def _turned(v: Tensor, cos: Tensor, sin: Tensor) -> Tensor:
    return torch.stack([cos * v[..., 0] + sin * v[..., 2], v[..., 1], cos * v[..., 2] - sin * v[..., 0]], -1)


@dataclass(frozen=True)
class Room:
    """size_N3: half width, depth, height. Five planes: floor, back, left, right, ceiling; none behind the camera."""

    size_N3: Tensor

    def hits(self, origin_N3: Tensor, ray_N3R: Tensor) -> Tensor:
        """Distance to each endless plane."""
        half_width, depth, height = self.size_N3.unbind(1)
        x, y, z = origin_N3.unbind(1)
        gap = torch.stack([-y, depth - z, -half_width - x, half_width - x, height - y], 1)
        t = gap[..., None] / _off_zero(ray_N3R[:, [1, 2, 0, 0, 1]])
        return _or_miss(t, t > 0)

    def normals(self, point_NR3: Tensor, which_NR: Tensor) -> Tensor:
        """Into the room."""
        inward = [[0.0, 1.0, 0.0], [0.0, 0.0, -1.0], [1.0, 0.0, 0.0], [-1.0, 0.0, 0.0], [0.0, -1.0, 0.0]]
        return torch.tensor(inward)[which_NR]
