"""Augmentation: labels follow their image, normals turn, depth scales, opened borders are ignored, nothing is mixed."""

from __future__ import annotations

import math
from dataclasses import replace
from typing import Any

import pytest
import torch
from torch import Tensor

from faar_ray.config.task_definitions import TaskDefinition
from faar_ray.config.trial import DataConfig
from faar_ray.data.scenes.domains import DOMAINS
from faar_ray.data.scenes.raycast import camera_rays, first_hits
from faar_ray.data.scenes.scene_layout import sample_scene
from faar_ray.data.transforms import Change, apply, blank_label, draw, for_evaluation, for_training, wrapped
from faar_ray.seeding import private
from faar_ray.tasks import Task, tasks_of

TASKS = ("semseg", "saliency", "normals", "depth", "edge", "height")
SIZE = (48, 64)


def make_config(**augment: Any) -> DataConfig:
    definitions = {"height": TaskDefinition(type="regression")}
    return DataConfig.model_validate(
        {"name": "nyud", "tasks": TASKS, "image_size": (32, 40), "augment": augment, "definitions": definitions}
    )


def sample() -> dict[str, Tensor]:
    """Values that tell where each pixel came from."""
    rows, columns = torch.meshgrid(torch.arange(SIZE[0]), torch.arange(SIZE[1]), indexing="ij")
    place = (rows * SIZE[1] + columns).float()
    return {
        "image": torch.stack([rows * 5, columns * 3, rows + columns]).to(torch.uint8),
        "semseg": ((rows // 8 + columns // 8) % 7).to(torch.uint8),
        "saliency": (columns > 30)[None].to(torch.uint8),
        "normals": torch.nn.functional.normalize(torch.randn(3, *SIZE, generator=private("normals")), dim=0),
        "depth": 1 + place[None] / 1000,
        "edge": (columns % 8 == 0)[None].to(torch.uint8),
        "height": -place[None],
    }


def tasks() -> dict[str, Task]:
    return tasks_of(make_config())


def changed(change: Change, name: str, value: Tensor, fill: float = 255.0) -> Tensor:
    return apply(change, wrapped({name: value}, tasks())[name], fill).as_subclass(Tensor)


@pytest.mark.parametrize("name", ["image", *TASKS])
def test_a_flip_twice_is_the_identity_and_once_is_not(name: str) -> None:
    value, flip = sample()[name], Change(True, 0.0, 1.0, None, None)
    once = changed(flip, name, value)
    assert not torch.equal(once, value)
    assert torch.equal(changed(flip, name, once), value)


def test_normals_of_a_sphere_look_the_same_however_it_is_turned() -> None:
    side = 65
    y, x = torch.meshgrid(torch.linspace(-1.3, 1.3, side), torch.linspace(-1.3, 1.3, side), indexing="ij")
    z = -(1 - x**2 - y**2).clamp_min(0).sqrt()
    sphere = torch.stack([x, y, z]) * (x**2 + y**2 < 0.95)
    for angle in (17.0, -90.0, 141.0):
        turned = changed(Change(False, angle, 1.0, None, None), "normals", sphere, 0.0)
        both = (turned.norm(dim=0) > 0.5) & (sphere.norm(dim=0) > 0.5)
        cosine = (turned * torch.nn.functional.normalize(sphere, dim=0)).sum(0)[both]
        assert both.sum() > 0.95 * (sphere.norm(dim=0) > 0.5).sum()
        assert cosine.min() > math.cos(math.radians(4))


def test_turning_a_rendered_picture_is_turning_its_camera() -> None:
    """The normals that are seen by a camera rolled by -angle are those of the picture turned by angle."""
    side, angle = 96, 25.0
    scene = sample_scene(2, DOMAINS["target"], private("camera"))

    def normals(roll: float) -> tuple[Tensor, Tensor]:
        cos, sin = math.cos(math.radians(roll)), math.sin(math.radians(roll))
        turn = torch.tensor([[cos, -sin, 0.0], [sin, cos, 0.0], [0.0, 0.0, 1.0]])
        camera = replace(scene.camera, axes_N33=turn @ scene.camera.axes_N33)
        hits = first_hits(scene, camera_rays(camera, side))
        seen = torch.bmm(camera.axes_N33, hits.normal_NR3.transpose(1, 2)).view(2, 3, side, side)
        return seen, hits.slot_NR.view(2, side, side)

    (plain, slots), (rolled, rolled_slots) = normals(0.0), normals(angle)
    change = Change(False, angle, 1.0, None, None)
    for image in range(2):
        turned = changed(change, "normals", plain[image], 0.0)
        surface = changed(change, "semseg", slots[image].to(torch.uint8))
        same_surface = (surface == rolled_slots[image]) & (turned.norm(dim=0) > 0.5)
        agree = ((turned * rolled[image]).sum(0) > math.cos(math.radians(3)))[same_surface]
        assert same_surface.float().mean() > 0.7
        assert agree.float().mean() > 0.9


def test_a_quarter_turn_moves_pixels_and_directions_exactly() -> None:
    square = {"normals": torch.zeros(3, 5, 5), "semseg": torch.zeros(5, 5, dtype=torch.uint8)}
    square["normals"][:, 0, 2] = torch.tensor([1.0, 0.0, 0.0])  # above the middle, pointing right
    square["semseg"][0, 2] = 3
    quarter = Change(False, 90.0, 1.0, None, None)
    normals = changed(quarter, "normals", square["normals"], 0.0)
    assert changed(quarter, "semseg", square["semseg"])[2, 4] == 3  # clockwise: right of the middle
    assert normals[:, 2, 4].tolist() == pytest.approx([0, 1, 0], abs=1e-5)  # now pointing down


def test_labels_are_never_mixed() -> None:
    original = sample()
    config = make_config(rotation=35.0, scale=[0.7, 1.4], crop=0.6)
    for index in range(20):
        result = for_training(original, tasks(), config, private("mixed", index))
        assert set(result["semseg"].unique().tolist()) <= {*original["semseg"].unique().tolist(), 255}
        assert set(result["saliency"].unique().tolist()) <= {0, 1, 255}
        known = result["height"][~result["height"].isnan()]
        assert torch.isin(known, original["height"]).all()


def test_opened_borders_are_black_and_ignored_by_every_task() -> None:
    config = make_config(rotation=0.0, scale=[0.5], flip=False)
    result = for_training(sample(), tasks(), config, private("borders"))
    corner = {name: value[..., 0, 0] for name, value in result.items()}
    assert corner["image"].tolist() == corner["normals"].tolist() == [0, 0, 0]
    assert corner["semseg"] == corner["saliency"] == corner["edge"] == corner["depth"] == 255
    assert corner["height"].isnan()
    assert (result["semseg"][16, 20] != 255).item()


def test_what_is_nearer_is_less_deep() -> None:
    flat = {**sample(), "depth": torch.full((1, *SIZE), 3.0)}
    flat["depth"][..., :4] = 255
    result = for_training(flat, tasks(), make_config(rotation=0.0, scale=[1.5], flip=False), private("depth"))
    assert result["depth"][0, 16, 20] == pytest.approx(2.0)
    smaller = for_training(flat, tasks(), make_config(rotation=0.0, scale=[0.5], flip=False), private("depth"))
    assert set(smaller["depth"].unique().tolist()) == {6.0, 255.0}


def test_invalid_normals_stay_invalid_and_valid_ones_unit() -> None:
    original = sample()
    original["normals"][:, :, :20] = 0
    result = for_training(original, tasks(), make_config(rotation=30.0, scale=[0.8, 1.2]), private("invalid"))
    lengths = result["normals"].norm(dim=0)
    assert 0.2 < (lengths == 0).float().mean() < 0.8
    assert ((lengths == 0) | ((lengths - 1).abs() < 1e-5)).all()


def test_the_papers_settings_are_taken_by_the_data_set_s_name() -> None:
    def draws(name: str, **augment: Any) -> list[Change]:
        config = make_config(**augment).augment
        return [draw(config, name, private("draw", index)) for index in range(200)]

    pascal, nyud, other = draws("pascal_context"), draws("nyud"), draws("folder")
    assert 15 < max(change.angle for change in pascal) <= 20 and -20 <= min(change.angle for change in pascal) < -15
    assert 0.75 <= min(change.scale for change in pascal) < max(change.scale for change in pascal) <= 1.25
    assert {change.scale for change in nyud} == {1.0, 1.2, 1.5} and {change.angle for change in nyud} == {0.0}
    assert {(change.angle, change.scale) for change in other} == {(0.0, 1.0)}
    assert all(60 < sum(change.flip for change in changes) < 140 for changes in (pascal, nyud, other))
    assert not any(change.flip for change in draws("folder", flip=False))
    assert {change.scale for change in draws("folder", preset="nyud")} == {1.0, 1.2, 1.5}


def test_a_change_depends_on_the_generator_alone() -> None:
    config = make_config(rotation=20.0, scale=[0.8, 1.2], crop=0.7, colour=0.3)
    first = for_training(sample(), tasks(), config, private("change", 1))
    torch.manual_seed(5)
    state = torch.get_rng_state()
    again = for_training(sample(), tasks(), config, private("change", 1))
    other = for_training(sample(), tasks(), config, private("change", 2))
    assert torch.equal(state, torch.get_rng_state())
    assert all(torch.equal(first[name].nan_to_num(-1), again[name].nan_to_num(-1)) for name in first)
    assert not torch.equal(first["image"], other["image"])


def test_colours_change_the_image_only() -> None:
    plain = for_training(sample(), tasks(), make_config(scale=[1.0], flip=False), private("colour"))
    colour = for_training(sample(), tasks(), make_config(scale=[1.0], flip=False, colour=0.5), private("colour"))
    differ = [name for name in plain if not torch.equal(plain[name].nan_to_num(-1), colour[name].nan_to_num(-1))]
    assert differ == ["image"]


def test_evaluation_resizes_or_leaves_labels_at_their_own_size() -> None:
    resized = for_evaluation(sample(), tasks(), make_config())
    assert {tuple(value.shape[-2:]) for value in resized.values()} == {(32, 40)}
    original = for_evaluation(sample(), tasks(), make_config(), labels=False)
    assert original["image"].shape[-2:] == (32, 40)
    assert all(torch.equal(original[name], sample()[name]) for name in TASKS)


@pytest.mark.parametrize("name", TASKS)
def test_a_blank_label_is_ignored_whatever_is_done_to_it(name: str) -> None:
    task = tasks()[name]
    blank = {**sample(), name: blank_label(task, SIZE)}
    result = for_training(blank, tasks(), make_config(rotation=20.0, scale=[0.8]), private("blank"))[name]
    counts = task.loss.counts(result[None].long() if task.type == "segmentation" else result[None].float())
    assert counts[0] == 0


def test_normals_of_a_sphere_look_the_same_in_a_mirror() -> None:
    y, x = torch.meshgrid(torch.linspace(-1, 1, 33), torch.linspace(-1, 1, 33), indexing="ij")
    sphere = torch.stack([x, y, -(1 - x**2 - y**2).clamp_min(0).sqrt()]) * (x**2 + y**2 < 0.95)
    mirrored = changed(Change(True, 0.0, 1.0, None, None), "normals", sphere, 0.0)
    torch.testing.assert_close(mirrored, sphere)
