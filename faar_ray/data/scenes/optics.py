"""From linear colour to a photograph: tint, gamma, vignette, blur, sensor noise, and the target's colour order.

Shapes: N images, R rays, 3 colours, H W space.
"""

from __future__ import annotations

import torch
from torch import Tensor
from torch.nn import functional as F

from faar_ray.data.scenes.batch_rng import BatchRng
from faar_ray.data.scenes.domains import Domain
from faar_ray.data.scenes.raycast import pixel_grid


def apply_camera(colour_NR3: Tensor, size: int, domain: Domain, source: torch.Generator) -> Tensor:
    """Develop to uint8, (N, 3, H, W)."""
    draws = BatchRng(len(colour_NR3), source)
    tint, gamma = 1 + draws.signed(domain.tint, 1, 3), draws.uniform(domain.gamma, 1, 1)
    vignette = domain.vignette * draws.uniform((0.0, 1.0), 1, 1)
    corner_R1 = 2 * pixel_grid(size).square().sum(0)[:, None]
    exposed = (colour_NR3 * tint).clamp(1e-4, 1) ** gamma * (1 - vignette * corner_R1)
    picture = exposed.transpose(1, 2).reshape(-1, 3, size, size)
    picture = torch.where(draws.chance(domain.blur_share, 1, 1, 1), _blurred(picture), picture)
    grain = draws.uniform(domain.noise, 1, 1, 1) * draws.normal(1.0, 3, size, size)
    levels = ((picture + grain).clamp(0, 1) * 255).round().to(torch.uint8)
    return roll_colours(levels) if domain.colours_rolled else levels


def _blurred(picture_N3HW: Tensor) -> Tensor:
    soft = F.avg_pool2d(F.pad(picture_N3HW, (1, 1, 1, 1), mode="reflect"), 3, 1)
    return (picture_N3HW + soft) / 2


def roll_colours(levels_N3HW: Tensor) -> Tensor:
    """The target's fixed shift: every level inverted, RGB rolled by one channel; without it adapting hardly matters."""
    return 255 - levels_N3HW.roll(1, dims=1)
