"""Saliency and edges, recomputed pixel by pixel from their stated rules."""

from __future__ import annotations

import math

import torch
from torch import Tensor

from faar_ray.data.scenes.domains import DOMAINS
from faar_ray.data.scenes.labels import edges, salient
from faar_ray.data.scenes.scenes import render
from faar_ray.seeding import private

SIZE = 48


def salient_by_the_rule(instance_HW: Tensor) -> Tensor:
    size, best, winner = len(instance_HW), 0.0, None
    for instance in set(instance_HW.flatten().tolist()):
        pixels = (instance_HW == instance).nonzero().tolist()
        if instance == 0 or len(pixels) < 0.008 * size * size:
            continue
        dy = sum(y + 0.5 for y, _ in pixels) / len(pixels) / size - 0.5
        dx = sum(x + 0.5 for _, x in pixels) / len(pixels) / size - 0.5
        score = math.sqrt(len(pixels)) * math.exp(-(dx * dx + dy * dy) / (2 * 0.25**2))
        if score > best:
            best, winner = score, instance
    return instance_HW == winner if winner is not None else torch.zeros_like(instance_HW, dtype=torch.bool)


def test_saliency_follows_its_rule() -> None:
    scenes = render(24, DOMAINS["target"], SIZE, private("saliency"))
    for instance, saliency in zip(scenes.instance, scenes.saliency, strict=True):
        assert torch.equal(saliency, salient_by_the_rule(instance))
    assert scenes.saliency.any()


def test_an_object_below_the_smallest_share_is_never_salient() -> None:
    instance = torch.zeros(1, 1000, dtype=torch.long)
    instance[0, :7] = 3
    assert not salient(torch.nn.functional.pad(instance, (0, 24)), 32).any()


def test_the_middle_wins_between_equals() -> None:
    instance = torch.zeros(32, 32, dtype=torch.long)
    instance[2:8, 2:8], instance[13:19, 13:19] = 4, 5
    assert torch.equal(salient(instance.view(1, -1), 32).view(32, 32), instance == 5)


def test_edges_are_where_label_or_normal_changes() -> None:
    label = torch.zeros(1, 4, 4, dtype=torch.long)
    label[:, :, 2:] = 1
    normal = torch.zeros(1, 3, 4, 4)
    normal[:, 2, :2], normal[:, 1, 2:] = -1, -1
    expected = torch.zeros(4, 4, dtype=torch.bool)
    expected[:, 2], expected[2] = True, True
    assert torch.equal(edges(label, normal)[0], expected)
