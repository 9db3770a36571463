"""`scenes`: random rooms, rendered with exact labels.

Shapes: N images, R pixels, H W space. Increase GENERATOR_VERSION
whenever the bytes change: the caches' keys depend on it.
"""

from __future__ import annotations

from dataclasses import dataclass, fields

import torch
from torch import Tensor

from faar_ray.data.scenes import object_table
from faar_ray.data.scenes.domains import Domain
from faar_ray.data.scenes.labels import edges, salient
from faar_ray.data.scenes.optics import apply_camera
from faar_ray.data.scenes.raycast import camera_rays, first_hits
from faar_ray.data.scenes.scene_layout import sample_scene
from faar_ray.data.scenes.shading import shade

GENERATOR_VERSION = 2


@dataclass(frozen=True)
class Rendered:
    """A chunk of images and the labels of each pixel.

    image (N, 3, H, W) uint8; semseg, human_parts, instance (N, H, W) uint8; saliency, edge (N, H, W) bool;
    normals (N, 3, H, W) float32, unit, camera axes (x right, y down, z forward);
    depth (N, H, W) float32, metres along the optical axis.
    """

    image: Tensor
    semseg: Tensor
    human_parts: Tensor
    instance: Tensor
    saliency: Tensor
    edge: Tensor
    normals: Tensor
    depth: Tensor


@torch.no_grad()
def render(images: int, domain: Domain, size: int, generator: torch.Generator) -> Rendered:
    """Draw and render `images` rooms at size x size pixels."""
    scene = sample_scene(images, domain, generator)
    rays = camera_rays(scene.camera, size)
    hits = first_hits(scene, rays)
    image = apply_camera(shade(scene, rays, hits), size, domain, generator)

    semantic, part = object_table.SEMANTIC_P[hits.slot_NR], object_table.PART_P[hits.slot_NR]
    instance = object_table.INSTANCE_P[hits.slot_NR]
    normals = torch.bmm(scene.camera.axes_N33, hits.normal_NR3.transpose(1, 2)).view(images, 3, size, size)
    surface = (instance * len(object_table.PARTS) + part) * len(object_table.CLASSES) + semantic

    def grid(values_NR: Tensor) -> Tensor:
        return values_NR.reshape(images, size, size)

    return Rendered(
        image=image,
        semseg=grid(semantic).to(torch.uint8),
        human_parts=grid(part).to(torch.uint8),
        instance=grid(instance).to(torch.uint8),
        saliency=grid(salient(instance, size)),
        edge=edges(grid(surface), normals),
        normals=normals,
        depth=grid(hits.distance_NR * rays.camera_N3R[:, 2]),
    )


def concatenate(chunks: list[Rendered]) -> Rendered:
    """Join chunks along the images."""
    names = [field.name for field in fields(Rendered)]
    return Rendered(**{name: torch.cat([getattr(chunk, name) for chunk in chunks]) for name in names})
