"""Random layout of a chunk of rooms: objects, colours, light and camera.

Shapes: N images, K primitives of one kind, P all primitives (`object_table.SLOTS`), M materials; metres and radians.
World axes: x right, y up, z into the room. Camera axes: x right, y down, z forward.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import torch
from torch import Tensor
from torch.nn import functional as F

from faar_ray.data.scenes import object_table
from faar_ray.data.scenes.batch_rng import BatchRng
from faar_ray.data.scenes.domains import Domain
from faar_ray.data.scenes.person import Person, pose_person
from faar_ray.data.scenes.primitives import Boxes, Capsules, Cylinders, Primitive, Room, Spheres


@dataclass(frozen=True)
class Camera:
    """Pinhole: position_N3; axes_N33 has rows right, down, forward; focal_N in image widths."""

    position_N3: Tensor
    axes_N33: Tensor
    focal_N: Tensor


@dataclass(frozen=True)
class Light:
    """One lamp under the ceiling, and the share of ambient light."""

    position_N3: Tensor
    ambient_N: Tensor


@dataclass(frozen=True)
class Paint:
    """Two colours in 0..1 and the pattern between them, for each material."""

    first_NM3: Tensor
    second_NM3: Tensor
    texture_NM: Tensor
    frequency_NM: Tensor
    direction_NM3: Tensor
    seed_NM: Tensor


@dataclass(frozen=True)
class Scene:
    """A chunk of rooms. `solids`, then `room`, are in the order of `object_table.SLOTS`.

    active_NP is false where a slot is empty.
    """

    solids: tuple[Primitive, ...]
    room: Room
    active_NP: Tensor
    paint: Paint
    camera: Camera
    light: Light


def sample_scene(images: int, domain: Domain, generator: torch.Generator) -> Scene:
    """Draw `images` rooms of a domain."""
    rng = BatchRng(images, generator)
    size_N3 = torch.stack([rng.uniform((2.0, 3.5)), rng.uniform((5.0, 8.5)), rng.uniform((2.4, 3.4))], 1)
    places_NO2 = _places(rng, len(object_table.OBJECTS))
    person = pose_person(rng, _person_place(rng), domain.pose_spread)
    return Scene(
        solids=_solids(rng, domain.object_scale, person, places_NO2),
        room=Room(size_N3),
        active_NP=_active(rng, domain),
        paint=_paint(rng, domain),
        camera=_camera(rng, domain, size_N3[:, 2]),
        light=_light(rng, domain, size_N3[:, 2]),
    )


def _places(rng: BatchRng, count: int) -> Tensor:
    """(x, z) on the floor, inside the view of a narrow lens: (N, count, 2)."""
    z = rng.uniform((1.7, 4.0), count)
    return torch.stack([rng.signed(0.55, count) * z, z], -1)


def _person_place(rng: BatchRng) -> Tensor:
    z = rng.uniform((1.5, 3.0))
    return torch.stack([rng.signed(0.4) * z, z], -1)


def _active(rng: BatchRng, domain: Domain) -> Tensor:
    """The room always, `domain.objects` of the objects, the person in `domain.person_share` of the images."""
    objects = len(object_table.OBJECTS)
    count_N = rng.integers(*domain.objects)
    order_NO = rng.uniform((0.0, 1.0), objects).argsort(1).argsort(1)
    always, person = torch.ones(rng.images, 1, dtype=torch.bool), rng.chance(domain.person_share, 1)
    return torch.cat([always, person, order_NO < count_N[:, None]], 1)[:, object_table.INSTANCE_P]


def _solids(rng: BatchRng, scale: float, person: Person, places_NO2: Tensor) -> tuple[Primitive, ...]:
    counts = [3, len(object_table.RODS), len(object_table.CYLINDERS), 2, 1]
    balls, rods, pillars, crates, tables = torch.split(places_NO2, counts, 1)
    return (
        _spheres(rng, scale, balls, person),
        _capsules(rng, scale, rods, person),
        Cylinders(pillars, _sizes(rng, (0.2, 0.45), scale, 2), _sizes(rng, (0.4, 1.9), scale, 2)),
        _boxes(rng, scale, crates, tables[:, 0]),
    )


def _sizes(rng: BatchRng, bounds: tuple[float, float], scale: float, *shape: int) -> Tensor:
    return scale * rng.uniform(bounds, *shape)


def _upright(place_Nx2: Tensor, height_Nx: Tensor) -> Tensor:
    """(x, z) and a height y to (x, y, z)."""
    return torch.stack([place_Nx2[..., 0], height_Nx, place_Nx2[..., 1]], -1)


def _spheres(rng: BatchRng, scale: float, places_NK2: Tensor, person: Person) -> Spheres:
    """Balls on the floor, a quarter of them in the air, and the head."""
    count = places_NK2.shape[1]
    radius = _sizes(rng, (0.25, 0.6), scale, count)
    lift = rng.chance(0.25, count) * rng.uniform((0.0, 1.0), count)
    centre = torch.cat([_upright(places_NK2, radius + lift), person.head_N3[:, None]], 1)
    return Spheres(centre, torch.cat([radius, person.head_radius_N[:, None]], 1))


def _capsules(rng: BatchRng, scale: float, places_NK2: Tensor, person: Person) -> Capsules:
    """The person's limbs, and rods that lie or lean."""
    count = places_NK2.shape[1]
    turn = rng.uniform((0.0, math.pi), count)
    lean = rng.chance(0.5, count) * rng.uniform((0.3, 1.3), count)
    radius = rng.uniform((0.11, 0.19), count)
    length = _sizes(rng, (1.0, 2.0), scale, count)
    direction = torch.stack([turn.cos() * lean.cos(), lean.sin(), turn.sin() * lean.cos()], -1)
    foot = _upright(places_NK2, radius)
    return Capsules(
        start_NK3=torch.cat([person.start_NK3, foot], 1),
        end_NK3=torch.cat([person.end_NK3, foot + direction * length[..., None]], 1),
        radius_NK=torch.cat([person.radius_NK, radius], 1),
    )


def _boxes(rng: BatchRng, scale: float, crates_NK2: Tensor, table_N2: Tensor) -> Boxes:
    """Two crates; a table is a slab on two side panels."""
    crate_half = _sizes(rng, (0.22, 0.55), scale, 2, 3)
    crate_turn = rng.uniform((0.0, math.pi), 2)
    half_width, half_depth, height = (_sizes(rng, r, scale) for r in ((0.45, 0.8), (0.3, 0.5), (0.5, 0.85)))
    turn = rng.uniform((0.0, math.pi))
    thin = torch.full_like(height, 0.05)
    across = torch.stack([turn.cos(), 0 * turn, turn.sin()], -1) * (half_width - 0.07)[:, None]
    middle = _upright(table_N2, height / 2)
    slab = torch.stack([half_width, thin, half_depth], -1)
    panel = torch.stack([thin, height / 2, 0.85 * half_depth], -1)
    table_centre = torch.stack([_upright(table_N2, height), middle - across, middle + across], 1)
    return Boxes(
        centre_NK3=torch.cat([_upright(crates_NK2, crate_half[..., 1]), table_centre], 1),
        half_NK3=torch.cat([crate_half, torch.stack([slab, panel, panel], 1)], 1),
        turn_NK=torch.cat([crate_turn, turn[:, None].expand(-1, 3)], 1),
    )


def _camera(rng: BatchRng, domain: Domain, room_height_N: Tensor) -> Camera:
    height = torch.minimum(rng.uniform(domain.camera_height), room_height_N - 0.2)
    yaw, pitch = rng.signed(domain.camera_yaw), rng.uniform(domain.camera_pitch)
    forward = torch.stack([yaw.sin() * pitch.cos(), -pitch.sin(), yaw.cos() * pitch.cos()], 1)
    right = torch.stack([yaw.cos(), 0 * yaw, -yaw.sin()], 1)
    axes = torch.stack([right, torch.linalg.cross(right, forward), forward], 1)
    position = torch.stack([rng.signed(0.4), height, rng.uniform((-0.6, 0.2))], 1)
    half_angle = torch.deg2rad(rng.uniform(domain.field_of_view_degrees)) / 2
    return Camera(position, axes, 0.5 / half_angle.tan())


def _light(rng: BatchRng, domain: Domain, room_height_N: Tensor) -> Light:
    position = torch.stack([rng.signed(1.8), room_height_N - 0.15, rng.uniform((0.0, 4.0))], 1)
    return Light(position, rng.uniform(domain.ambient_light))


def _paint(rng: BatchRng, domain: Domain) -> Paint:
    """Colours partly follow the class (`class_colour_share`); the person wears skin, shirt and trousers."""
    count = len(object_table.MATERIALS)
    hue, saturation = _hue(rng, domain), rng.uniform(domain.saturation, count)
    value = rng.uniform((0.4, 1.0), count)
    skin = object_table.MATERIALS.index("skin")
    hue[:, skin] = rng.uniform((0.03, 0.10))
    saturation[:, skin] = rng.uniform((0.25, 0.55))
    darker = value * (1 - domain.texture_contrast * rng.uniform((0.0, 1.0), count))
    furniture = torch.where(object_table.MATERIAL_CLASS_M < 3, 1.0, 2.0)  # finer patterns than floor, walls and ceiling
    return Paint(
        first_NM3=_rgb(hue, saturation, value),
        second_NM3=_rgb(hue + rng.normal(0.08, count), saturation, darker),
        texture_NM=rng.choice(domain.texture_weights, count),
        frequency_NM=rng.uniform(domain.texture_frequency, count) * furniture,
        direction_NM3=F.normalize(rng.normal(1.0, count, 3), dim=-1),
        seed_NM=rng.integers(0, 9999, count),
    )


def _hue(rng: BatchRng, domain: Domain) -> Tensor:
    count = len(object_table.MATERIALS)
    of_class_M = object_table.MATERIAL_CLASS_M / len(object_table.CLASSES) + domain.class_hue_shift
    dressed_M = torch.tensor([name in object_table.GARMENTS for name in object_table.MATERIALS])
    typical = of_class_M + rng.normal(0.04, count)
    return torch.where(
        rng.chance(domain.class_colour_share, count) & ~dressed_M, typical, rng.uniform((0.0, 1.0), count)
    )


def _rgb(hue: Tensor, saturation: Tensor, value: Tensor) -> Tensor:
    """HSV to RGB, hue in turns: (...,) each to (..., 3)."""
    k = (torch.tensor([5.0, 3.0, 1.0]) + 6 * (hue % 1)[..., None]) % 6
    return value[..., None] * (1 - saturation[..., None] * torch.minimum(k, 4 - k).clamp(0, 1))
