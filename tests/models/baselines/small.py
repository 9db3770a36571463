"""Small models of the baselines away from their start, and the plain layer that their references share."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from faar_ray.config.trial import TrialConfig
from faar_ray.models import MultiTaskModel, build_model
from tests.models.baselines.plain_swin import Weights, linear, low_rank

TASKS = ("semseg", "human_parts", "normals")
SCALE = 4.0


def config(method: str, **dotted: Any) -> TrialConfig:
    raw = {"method": method, "backbone": {"pretrained": False, "drop_path": 0.2}, "data": {"tasks": TASKS}}
    return TrialConfig.resolve(raw, **{"ranks.init_rank": 6, **dotted})


def micro(method: str, **dotted: Any) -> MultiTaskModel:
    """Away from its start in everything that trains, with drop-path that evaluation must not see."""
    model = build_model(config(method, **dotted)).double().eval()
    generator = torch.Generator().manual_seed(1)
    with torch.no_grad():
        for parameter in model.parameters():
            if parameter.requires_grad:
                parameter.add_(0.1 * torch.randn(parameter.shape, generator=generator, dtype=torch.float64))
    return model


def image() -> Tensor:
    return torch.randn(2, 3, 64, 64, dtype=torch.float64, generator=torch.Generator().manual_seed(0))


def adapted(w: Weights, at: str, x: Tensor) -> Tensor:
    return linear(w, at, x) + SCALE * low_rank(w, f"{at}.adapter", x)
