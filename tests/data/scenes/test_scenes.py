"""Rendered scenes: geometry, labels and pictures agree with one another."""

from __future__ import annotations

from dataclasses import fields
from typing import Any

import pytest
import torch
from torch import Tensor
from torch.nn import functional as F

from faar_ray.data.scenes.domains import DOMAINS
from faar_ray.data.scenes.object_table import CLASSES, PARTS, PERSON
from faar_ray.data.scenes.optics import roll_colours
from faar_ray.data.scenes.raycast import camera_rays, first_hits, is_lit
from faar_ray.data.scenes.scene_layout import sample_scene
from faar_ray.data.scenes.scenes import Rendered, render
from faar_ray.seeding import private

IMAGES, SIZE = 24, 64


@pytest.fixture(scope="module", params=sorted(DOMAINS))
def domain(request: pytest.FixtureRequest) -> str:
    return str(request.param)


@pytest.fixture(scope="module")
def scenes(domain: str) -> Rendered:
    return render(IMAGES, DOMAINS[domain], SIZE, private("test", domain))


def test_normals_agree_with_finite_differences_of_depth_off_the_edges(scenes: Rendered, domain: str) -> None:
    camera = sample_scene(IMAGES, DOMAINS[domain], private("test", domain)).camera
    ray = camera_rays(camera, SIZE).camera_N3R
    points = (ray / ray[:, 2:]).view(IMAGES, 3, SIZE, SIZE) * scenes.depth[:, None]
    across = points[..., 1:-1, 2:] - points[..., 1:-1, :-2]
    downwards = points[..., 2:, 1:-1] - points[..., :-2, 1:-1]
    measured = F.normalize(torch.linalg.cross(downwards, across, dim=1), dim=1)
    smooth = F.max_pool2d(scenes.edge[:, None].float(), 3, 1, 1)[:, 0, 1:-1, 1:-1] == 0
    cosine = (measured * scenes.normals[..., 1:-1, 1:-1]).sum(1)[smooth]
    assert smooth.float().mean() > 0.5
    assert (cosine > 0.95).float().mean() > 0.999  # the rest: one limb in front of another, no edge by label
    assert (cosine > 0.999).float().mean() > 0.95


def test_normals_are_unit_vectors_that_face_the_camera(scenes: Rendered, domain: str) -> None:
    camera = sample_scene(IMAGES, DOMAINS[domain], private("test", domain)).camera
    ray = camera_rays(camera, SIZE).camera_N3R.view(IMAGES, 3, SIZE, SIZE)
    assert torch.allclose(scenes.normals.square().sum(1), torch.ones(IMAGES, SIZE, SIZE), atol=1e-4)
    assert ((scenes.normals * ray).sum(1) < 1e-3).all()


def test_parts_lie_inside_the_person_and_cover_it(scenes: Rendered) -> None:
    assert torch.equal(scenes.human_parts > 0, scenes.semseg == PERSON)
    assert (scenes.human_parts > 0).any()


def test_label_values_are_in_range(scenes: Rendered) -> None:
    assert scenes.semseg.max() < len(CLASSES)
    assert scenes.human_parts.max() < len(PARTS)
    assert ((scenes.depth > 0) & (scenes.depth < 15)).all()
    assert scenes.saliency.dtype == scenes.edge.dtype == torch.bool


def test_the_picture_is_not_upside_down(scenes: Rendered) -> None:
    row = torch.arange(SIZE).float()[:, None].expand(SIZE, SIZE)

    def mean_row(name: str) -> float:
        return float(row.expand(IMAGES, SIZE, SIZE)[scenes.semseg == CLASSES.index(name)].mean())

    assert mean_row("ceiling") < mean_row("wall") < mean_row("floor")
    floor = scenes.normals.permute(0, 2, 3, 1)[scenes.semseg == CLASSES.index("floor")]
    assert (floor[:, 1] < 0).all()  # camera y points down, floors point up


def test_every_class_and_part_is_seen_and_three_quarters_have_a_person(domain: str) -> None:
    many = render(200, DOMAINS[domain], 32, private("frequencies", domain))
    share = torch.bincount(many.semseg.flatten().long(), minlength=len(CLASSES)) / many.semseg.numel()
    assert (share > 0.01).all(), dict(zip(CLASSES, share.tolist(), strict=True))
    assert torch.bincount(many.human_parts.flatten().long(), minlength=len(PARTS)).min() > 100
    with_person = (many.human_parts > 0).flatten(1).any(1).float().mean()
    assert 0.6 < with_person < 0.85


def test_the_lamp_and_the_point_agree_on_who_stands_between(domain: str) -> None:
    scene = sample_scene(8, DOMAINS[domain], private("shadow", domain))
    hits = first_hits(scene, camera_rays(scene.camera, 32))
    offset = scene.light.position_N3[:, None] - hits.point_NR3
    distance = offset.square().sum(-1).sqrt()
    towards = offset / distance[..., None]
    lit = is_lit(scene, -towards.transpose(1, 2), distance)
    faces = (hits.normal_NR3 * towards).sum(-1) > 0.05
    blocked = torch.zeros_like(lit)
    for image in range(8):  # the other way round: from each point to the lamp, one origin per ray
        start = hits.point_NR3[image] + 0.02 * hits.normal_NR3[image]
        blocked[image] = _blocked(scene.solids, scene.active_NP[image], image, start, towards[image], distance[image])
    assert blocked[faces].any()
    assert (lit[faces] == ~blocked[faces]).float().mean() > 0.99


def _blocked(
    solids: tuple[Any, ...], active_P: Tensor, image: int, start_R3: Tensor, towards_R3: Tensor, length_R: Tensor
) -> Tensor:
    """One origin per ray: the image's tables, once for every ray, as if each ray were an image of its own."""
    images = torch.full((len(start_R3),), image)
    repeated = [type(kind)(**{f.name: getattr(kind, f.name)[images] for f in fields(kind)}) for kind in solids]
    t_RP = torch.cat([kind.hits(start_R3, towards_R3[..., None])[..., 0] for kind in repeated], 1)
    return torch.where(active_P[: t_RP.shape[1]], t_RP, 1e9).amin(1) < length_R


def test_same_seed_gives_same_bytes_and_another_seed_others() -> None:
    first, again = (render(4, DOMAINS["target"], 32, private("again", 1)) for _ in range(2))
    other = render(4, DOMAINS["target"], 32, private("again", 2))
    assert all(torch.equal(getattr(first, f.name), getattr(again, f.name)) for f in fields(Rendered))
    assert not torch.equal(first.image, other.image)


def test_rendering_leaves_the_global_generator_alone() -> None:
    before = torch.get_rng_state()
    render(2, DOMAINS["source"], 32, private("global"))
    assert torch.equal(before, torch.get_rng_state())


def test_domains_differ_in_colour_order_lens_and_noise() -> None:
    source, target = (render(24, DOMAINS[name], 32, private("domains")) for name in ("source", "target"))
    assert target.image.float().mean() - source.image.float().mean() > 40  # inverted: dark rooms turn bright

    def grain(images: Tensor) -> float:
        return float((images.float() - F.avg_pool2d(images.float(), 3, 1, 1)).abs().median())

    assert grain(target.image) > 1.2 * grain(source.image)


def test_the_target_inverts_levels_and_rolls_colours_by_one() -> None:
    red = torch.tensor([200, 10, 0], dtype=torch.uint8).view(1, 3, 1, 1)
    assert roll_colours(red).flatten().tolist() == [255, 55, 245]
