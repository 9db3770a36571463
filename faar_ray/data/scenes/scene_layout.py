"""What stands where in a chunk of rooms, how it is painted, and who looks at it: all the random draws of a scene.

Shapes: N images, K primitives of one kind, P all primitives (`slots.SLOTS`), M materials; metres and radians.
World axes: x right, y up, z into the room. Camera axes: x right, y down, z forward.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import torch
from torch import Tensor
from torch.nn import functional as F

from faar_ray.data.scenes import object_table as slots
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
    """One lamp under the ceiling, and the share of light that comes from everywhere."""

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
    """A chunk of rooms; `solids` then `room` are in the order of `slots.SLOTS`; active_NP switches slots."""

    solids: tuple[Primitive, ...]
    room: Room
    active_NP: Tensor
    paint: Paint
    camera: Camera
    light: Light


def sample_scene(images: int, domain: Domain, source: torch.Generator) -> Scene:
    """Draw `images` rooms of a domain."""
    draws = BatchRng(images, source)
    size_N3 = torch.stack([draws.uniform((2.0, 3.5)), draws.uniform((5.0, 8.5)), draws.uniform((2.4, 3.4))], 1)
    places_NO2 = _places(draws, len(slots.OBJECTS))
    person = pose_person(draws, _person_place(draws), domain.pose_spread)
    return Scene(
        solids=_solids(draws, domain.object_scale, person, places_NO2),
        room=Room(size_N3),
        active_NP=_active(draws, domain),
        paint=_paint(draws, domain),
        camera=_camera(draws, domain, size_N3[:, 2]),
        light=_light(draws, domain, size_N3[:, 2]),
    )


def _places(draws: BatchRng, count: int) -> Tensor:
    """(x, z) on the floor, inside the view of a narrow lens: (N, count, 2)."""
    z = draws.uniform((1.7, 4.0), count)
    return torch.stack([draws.signed(0.55, count) * z, z], -1)


def _person_place(draws: BatchRng) -> Tensor:
    z = draws.uniform((1.5, 3.0))
    return torch.stack([draws.signed(0.4) * z, z], -1)


def _active(draws: BatchRng, domain: Domain) -> Tensor:
    """The room always, `domain.objects` of the objects, the person in `domain.person_share` of the images."""
    objects = len(slots.OBJECTS)
    wanted_N = draws.integers(*domain.objects)
    lot_NO = draws.uniform((0.0, 1.0), objects).argsort(1).argsort(1)
    always, person = torch.ones(draws.images, 1, dtype=torch.bool), draws.chance(domain.person_share, 1)
    return torch.cat([always, person, lot_NO < wanted_N[:, None]], 1)[:, slots.INSTANCE_P]


def _solids(draws: BatchRng, scale: float, person: Person, places_NO2: Tensor) -> tuple[Primitive, ...]:
    balls, rods, pillars, crates, tables = torch.split(places_NO2, [3, len(slots.RODS), len(slots.CYLINDERS), 2, 1], 1)
    return (
        _spheres(draws, scale, balls, person),
        _capsules(draws, scale, rods, person),
        Cylinders(pillars, _sizes(draws, (0.2, 0.45), scale, 2), _sizes(draws, (0.4, 1.9), scale, 2)),
        _boxes(draws, scale, crates, tables[:, 0]),
    )


def _sizes(draws: BatchRng, bounds: tuple[float, float], scale: float, *shape: int) -> Tensor:
    return scale * draws.uniform(bounds, *shape)


def _upright(place_Nx2: Tensor, height_Nx: Tensor) -> Tensor:
    """(x, z) and a height y to (x, y, z)."""
    return torch.stack([place_Nx2[..., 0], height_Nx, place_Nx2[..., 1]], -1)


def _spheres(draws: BatchRng, scale: float, places_NK2: Tensor, person: Person) -> Spheres:
    """Balls on the floor, a quarter of them in the air, and the head."""
    count = places_NK2.shape[1]
    radius = _sizes(draws, (0.25, 0.6), scale, count)
    lift = draws.chance(0.25, count) * draws.uniform((0.0, 1.0), count)
    centre = torch.cat([_upright(places_NK2, radius + lift), person.head_N3[:, None]], 1)
    return Spheres(centre, torch.cat([radius, person.head_radius_N[:, None]], 1))


def _capsules(draws: BatchRng, scale: float, places_NK2: Tensor, person: Person) -> Capsules:
    """The person's limbs, and rods that lie or lean."""
    count = places_NK2.shape[1]
    turn = draws.uniform((0.0, math.pi), count)
    lean = draws.chance(0.5, count) * draws.uniform((0.3, 1.3), count)
    radius = draws.uniform((0.11, 0.19), count)
    length = _sizes(draws, (1.0, 2.0), scale, count)
    direction = torch.stack([turn.cos() * lean.cos(), lean.sin(), turn.sin() * lean.cos()], -1)
    foot = _upright(places_NK2, radius)
    return Capsules(
        start_NK3=torch.cat([person.start_NK3, foot], 1),
        end_NK3=torch.cat([person.end_NK3, foot + direction * length[..., None]], 1),
        radius_NK=torch.cat([person.radius_NK, radius], 1),
    )


def _boxes(draws: BatchRng, scale: float, crates_NK2: Tensor, table_N2: Tensor) -> Boxes:
    """Two crates; a table is a slab on two side panels."""
    crate_half = _sizes(draws, (0.22, 0.55), scale, 2, 3)
    crate_turn = draws.uniform((0.0, math.pi), 2)
    half_width, half_depth, height = (_sizes(draws, r, scale) for r in ((0.45, 0.8), (0.3, 0.5), (0.5, 0.85)))
    turn = draws.uniform((0.0, math.pi))
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


def _camera(draws: BatchRng, domain: Domain, room_height_N: Tensor) -> Camera:
    height = torch.minimum(draws.uniform(domain.camera_height), room_height_N - 0.2)
    yaw, pitch = draws.signed(domain.camera_yaw), draws.uniform(domain.camera_pitch)
    forward = torch.stack([yaw.sin() * pitch.cos(), -pitch.sin(), yaw.cos() * pitch.cos()], 1)
    right = torch.stack([yaw.cos(), 0 * yaw, -yaw.sin()], 1)
    axes = torch.stack([right, torch.linalg.cross(right, forward), forward], 1)
    position = torch.stack([draws.signed(0.4), height, draws.uniform((-0.6, 0.2))], 1)
    half_angle = torch.deg2rad(draws.uniform(domain.field_of_view_degrees)) / 2
    return Camera(position, axes, 0.5 / half_angle.tan())


def _light(draws: BatchRng, domain: Domain, room_height_N: Tensor) -> Light:
    position = torch.stack([draws.signed(1.8), room_height_N - 0.15, draws.uniform((0.0, 4.0))], 1)
    return Light(position, draws.uniform(domain.ambient_light))


def _paint(draws: BatchRng, domain: Domain) -> Paint:
    """Colours partly follow the class (`class_colour_share`); the person wears skin, shirt and trousers."""
    count = len(slots.MATERIALS)
    hue, saturation = _hue(draws, domain), draws.uniform(domain.saturation, count)
    value = draws.uniform((0.4, 1.0), count)
    skin = slots.MATERIALS.index("skin")
    hue[:, skin] = draws.uniform((0.03, 0.10))
    saturation[:, skin] = draws.uniform((0.25, 0.55))
    darker = value * (1 - domain.texture_contrast * draws.uniform((0.0, 1.0), count))
    furniture = torch.where(slots.MATERIAL_CLASS_M < 3, 1.0, 2.0)  # finer patterns than floor, walls and ceiling
    return Paint(
        first_NM3=_rgb(hue, saturation, value),
        second_NM3=_rgb(hue + draws.normal(0.08, count), saturation, darker),
        texture_NM=draws.choice(domain.texture_weights, count),
        frequency_NM=draws.uniform(domain.texture_frequency, count) * furniture,
        direction_NM3=F.normalize(draws.normal(1.0, count, 3), dim=-1),
        seed_NM=draws.integers(0, 9999, count),
    )


def _hue(draws: BatchRng, domain: Domain) -> Tensor:
    count = len(slots.MATERIALS)
    of_class_M = slots.MATERIAL_CLASS_M / len(slots.CLASSES) + domain.class_hue_shift
    dressed_M = torch.tensor([name in slots.GARMENTS for name in slots.MATERIALS])
    typical = of_class_M + draws.normal(0.04, count)
    return torch.where(
        draws.chance(domain.class_colour_share, count) & ~dressed_M, typical, draws.uniform((0.0, 1.0), count)
    )


def _rgb(hue: Tensor, saturation: Tensor, value: Tensor) -> Tensor:
    """HSV to RGB, hue in turns: (...,) each to (..., 3)."""
    k = (torch.tensor([5.0, 3.0, 1.0]) + 6 * (hue % 1)[..., None]) % 6
    return value[..., None] * (1 - saturation[..., None] * torch.minimum(k, 4 - k).clamp(0, 1))
