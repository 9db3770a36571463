"""A method's model over Swin-T for the papers' two data sets, without memory: for exact counts."""

from __future__ import annotations

from typing import Any

import torch

from faar_ray.config.trial import TrialConfig
from faar_ray.models import MultiTaskModel, build_model, parameters_by_part

PASCAL = ("pascal_context", ("semseg", "normals", "saliency", "human_parts"))
NYUD = ("nyud", ("semseg", "depth", "normals"))
LIGHT = {"norms": 23_232, "patch embedding": 4_704, "position tables": 23_322}


def on_swin_tiny(method: str, data: tuple[str, tuple[str, ...]] = PASCAL, **dotted: Any) -> MultiTaskModel:
    raw = {
        "method": method,
        "data": {"name": data[0], "tasks": data[1], "image_size": 448},
        "backbone": {"name": "swin_tiny_patch4_window7_224", "pretrained": False},
    }
    with torch.device("meta"):
        return build_model(TrialConfig.resolve(raw, **dotted))


def trainable(model: MultiTaskModel) -> int:
    total = sum(p.numel() for p in model.parameters() if p.requires_grad)
    assert total == sum(parameters_by_part(model).values())
    return total
