"""The camera, from linear colour to pixels: tint, gamma, vignette, blur, sensor noise, colour order.

Shapes: N images, R rays, 3 colours, H W space.
"""

from __future__ import annotations

import torch
from torch import Tensor
from torch.nn import functional as F

from faar_ray.data.scenes.batch_rng import BatchRng
from faar_ray.data.scenes.domains import Domain
from faar_ray.data.scenes.raycast import pixel_grid


def apply_camera(colour_NR3: Tensor, size: int, domain: Domain, generator: torch.Generator) -> Tensor:
    """The camera's picture of linear colours, (N, 3, H, W) uint8."""
    rng = BatchRng(len(colour_NR3), generator)
    tint, gamma = 1 + rng.signed(domain.tint, 1, 3), rng.uniform(domain.gamma, 1, 1)
    vignette = domain.vignette * rng.uniform((0.0, 1.0), 1, 1)
    corner_R1 = 2 * pixel_grid(size).square().sum(0)[:, None]

    exposed = (colour_NR3 * tint).clamp(1e-4, 1) ** gamma * (1 - vignette * corner_R1)
    picture = exposed.transpose(1, 2).reshape(-1, 3, size, size)
    picture = torch.where(rng.chance(domain.blur_share, 1, 1, 1), _blurred(picture), picture)
    grain = rng.uniform(domain.noise, 1, 1, 1) * rng.normal(1.0, 3, size, size)
    levels = ((picture + grain).clamp(0, 1) * 255).round().to(torch.uint8)
    return roll_colours(levels) if domain.colours_rolled else levels


def _blurred(picture_N3HW: Tensor) -> Tensor:
    soft = F.avg_pool2d(F.pad(picture_N3HW, (1, 1, 1, 1), mode="reflect"), 3, 1)
    return (picture_N3HW + soft) / 2


def roll_colours(levels_N3HW: Tensor) -> Tensor:
    """The fixed shift of `target`: levels inverted, RGB rolled by one channel. Without it adapting gains little."""
    return 255 - levels_N3HW.roll(1, dims=1)
