"""The colour of a point: procedural texture, one lamp with shadows, ambient light.

Shapes: N images, R rays, 3 axes or colours, 8 corners of a lattice cell.
"""

from __future__ import annotations

import math

import torch
from torch import Tensor
from torch.nn import functional as F

from faar_ray.data.scenes import object_table
from faar_ray.data.scenes.primitives import pick
from faar_ray.data.scenes.raycast import Hits, Rays, is_lit
from faar_ray.data.scenes.scene_layout import Light, Paint, Scene

OCTAVES = ((1.0, 0.5), (2.03, 0.3), (4.01, 0.2))  # (frequency, weight); uneven ratios keep the lattices from aligning


def shade(scene: Scene, rays: Rays, hits: Hits) -> Tensor:
    """Linear colour before the camera: (N, R, 3), about 0..1."""
    return albedo(scene.paint, hits) * illumination(scene, rays, hits)[..., None]


def albedo(paint: Paint, hits: Hits) -> Tensor:
    """The two colours of the material, mixed by its pattern: (N, R, 3)."""
    material_NR = object_table.MATERIAL_P[hits.slot_NR]
    place_NR3 = hits.point_NR3 * pick(paint.frequency_NM, material_NR)[..., None] + 7.3
    noise_NR = octave_noise(place_NR3, pick(paint.seed_NM, material_NR))
    checks = (place_NR3 + hits.normal_NR3 * 2e-3).floor().sum(-1) % 2
    wave = (place_NR3 * pick(paint.direction_NM3, material_NR)).sum(-1) * (1.5 * math.pi)
    stripes = (wave.sin() > 0).float()
    clouds = (2.2 * (noise_NR - 0.5) + 0.5).clamp(0, 1)
    texture = pick(paint.texture_NM, material_NR)
    pattern = torch.where(texture == 0, checks, torch.where(texture == 1, stripes, clouds))
    mix_NR1 = (0.85 * pattern + 0.15 * noise_NR)[..., None]
    return torch.lerp(pick(paint.first_NM3, material_NR), pick(paint.second_NM3, material_NR), mix_NR1)


def octave_noise(place_NR3: Tensor, seed_NR: Tensor) -> Tensor:
    """Value noise summed over OCTAVES: (N, R) in 0..1."""
    total = torch.zeros(place_NR3.shape[:-1])
    for octave, (frequency, weight) in enumerate(OCTAVES):
        total += weight * _value_noise(place_NR3 * frequency, seed_NR + octave)
    return total


def _value_noise(place_NR3: Tensor, seed_NR: Tensor) -> Tensor:
    """Random values on the integer lattice, smoothly interpolated: (N, R) in 0..1."""
    cell = place_NR3.floor()
    inside = place_NR3 - cell
    smooth = inside * inside * (3 - 2 * inside)
    x, y, z = cell.long().unbind(-1)
    fx, fy, fz = smooth.unbind(-1)
    values = [_lattice(x + i, y + j, z + k, seed_NR) for i in (0, 1) for j in (0, 1) for k in (0, 1)]
    along_z = [torch.lerp(values[c], values[c + 1], fz) for c in (0, 2, 4, 6)]
    along_y = [torch.lerp(along_z[c], along_z[c + 1], fy) for c in (0, 2)]
    return torch.lerp(along_y[0], along_y[1], fx)


def _lattice(x: Tensor, y: Tensor, z: Tensor, seed: Tensor) -> Tensor:
    """A 16-bit integer hash of a lattice point, as a number in 0..1."""
    h = (x * 374761393 + y * 668265263 + z * 482829451 + seed * 1274126177) & 0xFFFFFFFF
    h = ((h ^ (h >> 13)) * 1103515245) & 0xFFFFFFFF
    return ((h ^ (h >> 16)) & 0xFFFF).float() / 0xFFFF


def illumination(scene: Scene, rays: Rays, hits: Hits) -> Tensor:
    """Ambient light (more from above) plus the lamp where it is visible, diffuse and specular: (N, R)."""
    ambient = scene.light.ambient_N[:, None]
    from_above = 0.75 + 0.25 * hits.normal_NR3[..., 1]
    return ambient * from_above + (1 - ambient) * _lamp(scene, scene.light, rays, hits)


def _lamp(scene: Scene, light: Light, rays: Rays, hits: Hits) -> Tensor:
    offset = light.position_N3[:, None] - hits.point_NR3
    distance = offset.square().sum(-1).sqrt()
    towards = offset / distance[..., None]
    halfway = F.normalize(towards - rays.world_N3R.transpose(1, 2), dim=-1)
    diffuse = (hits.normal_NR3 * towards).sum(-1).clamp_min(0) * 16 / (5 + distance.square())
    specular = 0.15 * (hits.normal_NR3 * halfway).sum(-1).clamp_min(0) ** 20
    return is_lit(scene, -towards.transpose(1, 2), distance) * (diffuse + specular)
