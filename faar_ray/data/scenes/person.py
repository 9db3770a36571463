"""A posed person of ten primitives: head ball, torso, two arms and two legs of two capsules each.

Shapes: N images, 3 world axes; lengths in metres, angles in radians.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import torch
from torch import Tensor
from torch.nn import functional as F

from faar_ray.data.scenes.batch_rng import BatchRng

LIMB_LENGTH = 0.42


@dataclass(frozen=True)
class Person:
    """Capsules in the order of `object_table.LIMBS` (start, end, radius over K = 9) and the head's ball."""

    start_NK3: Tensor
    end_NK3: Tensor
    radius_NK: Tensor
    head_N3: Tensor
    head_radius_N: Tensor


@dataclass(frozen=True)
class _Body:
    """Axes and scale of one person per image: sideways, forwards, up (N, 3); scale (N, 1); spread of the pose."""

    side_N3: Tensor
    front_N3: Tensor
    up_N3: Tensor
    scale_N1: Tensor
    spread: float
    rng: BatchRng

    def angle(self, share: float) -> Tensor:
        return self.rng.normal(self.spread * share)

    def down(self, sideways_N: Tensor, forwards_N: Tensor) -> Tensor:
        """A limb that hangs, turned sideways and forwards."""
        cos = sideways_N.cos()
        hanging = -(cos * forwards_N.cos())[:, None] * self.up_N3
        swung = (cos * forwards_N.sin())[:, None] * self.front_N3
        return F.normalize(hanging + sideways_N.sin()[:, None] * self.side_N3 + swung, dim=1)


Segment = tuple[Tensor, Tensor, float]


def pose_person(rng: BatchRng, foot_N2: Tensor, spread: float) -> Person:
    """A person over the point (x, z) of the floor; the larger `spread`, the more the pose varies."""
    body = _body(rng, spread)
    scale = body.scale_N1
    trunk = -body.down(body.angle(0.15), body.angle(0.2))
    legs = [_leg_directions(body, side) for side in (-1, 1)]
    reach = torch.stack([-(upper + lower)[:, 1] for upper, lower in legs], 1).amax(1, keepdim=True)
    hip_height = (LIMB_LENGTH * reach + 0.07) * scale
    hip = torch.cat([foot_N2[:, :1], hip_height, foot_N2[:, 1:]], 1)
    neck = hip + trunk * 0.55 * scale
    segments: list[Segment] = [(hip + trunk * 0.05, neck - trunk * 0.05, 0.17)]
    for side in (-1, 1):
        segments += _arm(body, neck - trunk * 0.04 + side * 0.21 * scale * body.side_N3, side)
    for side, (upper, lower) in zip((-1, 1), legs, strict=True):
        segments += _leg(body, hip + side * 0.10 * scale * body.side_N3, upper, lower)
    return Person(
        start_NK3=torch.stack([start for start, _, _ in segments], 1),
        end_NK3=torch.stack([end for _, end, _ in segments], 1),
        radius_NK=scale * torch.tensor([radius for _, _, radius in segments]),
        head_N3=neck + trunk * 0.19 * scale,
        head_radius_N=0.14 * scale[:, 0],
    )


def _body(rng: BatchRng, spread: float) -> _Body:
    scale = rng.uniform((0.85, 1.1), 1)
    facing = rng.uniform((0.0, 2 * math.pi))
    zero = torch.zeros_like(facing)
    return _Body(
        side_N3=torch.stack([facing.cos(), zero, facing.sin()], 1),
        front_N3=torch.stack([-facing.sin(), zero, facing.cos()], 1),
        up_N3=torch.tensor([0.0, 1.0, 0.0]).expand(len(facing), 3),
        scale_N1=scale,
        spread=spread,
        rng=rng,
    )


def _leg_directions(body: _Body, side: int) -> tuple[Tensor, Tensor]:
    upper = body.down(side * (0.12 + body.angle(0.25).abs()), body.angle(0.4))
    lower = body.down(side * (0.08 + body.angle(0.2).abs()), body.angle(0.4))
    return upper, lower


def _leg(body: _Body, hip_N3: Tensor, upper_N3: Tensor, lower_N3: Tensor) -> list[Segment]:
    knee = hip_N3 + upper_N3 * LIMB_LENGTH * body.scale_N1
    return [(hip_N3, knee, 0.09), (knee, knee + lower_N3 * LIMB_LENGTH * body.scale_N1, 0.07)]


def _arm(body: _Body, shoulder_N3: Tensor, side: int) -> list[Segment]:
    length = LIMB_LENGTH * body.scale_N1
    upper = body.down(side * (0.25 + body.angle(0.6).abs()), body.angle(0.7))
    bend = body.down(side * body.angle(0.6), body.angle(0.7) + 0.4)
    elbow = shoulder_N3 + upper * 0.72 * length
    wrist = elbow + F.normalize(upper + 0.8 * bend, dim=1) * 0.7 * length
    return [(shoulder_N3, elbow, 0.065), (elbow, wrist, 0.055)]
