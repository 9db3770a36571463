"""Points that are hit lie on the surface, and the normals there point outwards."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor
from torch.nn import functional as F

from faar_ray.data.scenes.primitives import MISS, Boxes, Capsules, Cylinders, Primitive, Room, Spheres


def one(*numbers: float) -> Tensor:
    return torch.tensor([[numbers]]) if len(numbers) > 1 else torch.tensor([numbers])


BALL = Spheres(one(0, 1, 0), one(0.5))
PILL = Capsules(one(-0.5, 0.6, 0.2), one(0.5, 1.3, -0.1), one(0.3))
PILLAR = Cylinders(one(0, 0), one(0.4), one(1.2))
CRATE = Boxes(one(0, 0.5, 0), one(0.3, 0.5, 0.7), one(0.6))


def rays_at(target: Tensor, origin: Tensor) -> tuple[Tensor, Tensor]:
    """Rays from (1, 3) origin to points around the target: origin and unit directions (1, 3, R)."""
    around = target + torch.randn(400, 3, generator=torch.Generator().manual_seed(3)) * 0.4
    return origin, F.normalize(around - origin, dim=1).T[None]


def hit_points(solid: Primitive, origin: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """Points hit, their unit normals and the rays that hit, (R, 3) each."""
    start, ray = rays_at(torch.tensor([0.0, 0.7, 0.0]), origin)
    t = solid.hits(start, ray)[0, 0]
    points = (start[..., None] + ray * t)[0].T
    normals = F.normalize(solid.normals(points[None], torch.zeros(1, len(points), dtype=torch.long))[0], dim=1)
    hit = t < MISS
    assert hit.sum() > 50
    return points[hit], normals[hit], ray[0].T[hit]


def _length(v: Tensor) -> Tensor:
    return v.square().sum(1).sqrt()


def distance_to_surface(solid: Primitive, p: Tensor) -> Tensor:
    """Signed distances of points (R, 3), from the shapes' textbook distance functions."""
    if isinstance(solid, Spheres):
        return _length(p - solid.centre_NK3[0]) - solid.radius_NK[0]
    if isinstance(solid, Capsules):
        start, axis = solid.start_NK3[0], solid.end_NK3[0] - solid.start_NK3[0]
        share = (((p - start) * axis).sum(1) / axis.square().sum()).clamp(0, 1)
        return _length(p - start - share[:, None] * axis) - solid.radius_NK[0]
    if isinstance(solid, Cylinders):
        side = _length(p[:, ::2]) - solid.radius_NK[0]
        return torch.maximum(side, torch.maximum(p[:, 1] - solid.height_NK[0], -p[:, 1]))
    assert isinstance(solid, Boxes)
    turn = solid.turn_NK[0, 0]
    axes = torch.tensor([[turn.cos(), 0, turn.sin()], [0, 1, 0], [-turn.sin(), 0, turn.cos()]])
    return (((p - solid.centre_NK3[0]) @ axes.T).abs() - solid.half_NK3[0]).amax(1)


@pytest.mark.parametrize("solid", [BALL, PILL, PILLAR, CRATE], ids=lambda s: type(s).__name__)
@pytest.mark.parametrize("origin", [(0.3, 0.7, -3.0), (-2.0, 2.5, -1.0), (0.1, 3.0, 0.2)])
def test_hits_lie_on_the_surface_with_outward_normals(solid: Primitive, origin: tuple[float, ...]) -> None:
    points, normals, rays = hit_points(solid, torch.tensor([origin]))
    assert distance_to_surface(solid, points).abs().max() < 1e-4
    assert (distance_to_surface(solid, points + 0.01 * normals) > 0).all()
    assert ((normals * rays).sum(1) < 1e-3).all()  # the side that is seen


def test_the_cap_of_a_cylinder_faces_up() -> None:
    above = torch.tensor([[0.1, 3.0, 0.1]])
    down = torch.tensor([[[0.0], [-1.0], [0.0]]])
    t = PILLAR.hits(above, down)
    point = (above[..., None] + down * t[:, 0])[0].T[None]
    assert t.item() == pytest.approx(1.8)
    assert PILLAR.normals(point, torch.zeros(1, 1, dtype=torch.long))[0, 0].tolist() == [0.0, 1.0, 0.0]


@pytest.mark.parametrize("solid", [BALL, PILL, PILLAR, CRATE], ids=lambda s: type(s).__name__)
def test_what_lies_behind_the_ray_is_not_hit(solid: Primitive) -> None:
    start, ray = rays_at(torch.tensor([0.0, 0.7, 0.0]), torch.tensor([[0.0, 0.7, -3.0]]))
    assert (solid.hits(start, -ray) >= MISS).all()


def test_a_room_is_met_in_every_forward_direction() -> None:
    room = Room(torch.tensor([[2.0, 6.0, 2.5]]))
    start, ray = rays_at(torch.tensor([0.0, 0.7, 3.0]), torch.tensor([[0.0, 1.5, 0.0]]))
    nearest = room.hits(start, ray).amin(1)
    points = (start[..., None] + ray * nearest[:, None])[0]
    low, high = torch.tensor([[-2.0], [0.0], [-9.0]]), torch.tensor([[2.0], [2.5], [6.0]])
    assert ((points > low - 1e-3) & (points < high + 1e-3)).all()
