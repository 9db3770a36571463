"""Images that are not square: every method on every family gives maps of the image's size, and merges to the same."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from torch import Tensor

from faar_ray.config.trial import TrialConfig
from faar_ray.errors import ConfigError
from faar_ray.models import MultiTaskModel, build_model, merge

CHANNELS = {"semseg": 40, "normals": 3, "depth": 1}
MICRO, SWIN, VIT = "swin_micro", "swin_tiny_patch4_window7_224", "vit_tiny_patch16_224"


def moved(name: str, method: str, size: tuple[int, int], **dotted: Any) -> MultiTaskModel:
    """A model whose adapters, filters and norms are no longer where they started."""
    raw = {
        "method": method,
        "backbone": {"name": name, "pretrained": False},
        "data": {"name": "nyud", "tasks": list(CHANNELS), "image_size": size},
        "ranks": {"init_rank": 2},
        "decoder": {"width": 2},
    }
    model = build_model(TrialConfig.resolve(raw, **dotted)).eval()
    generator = torch.Generator().manual_seed(0)
    with torch.no_grad():
        for parameter in model.parameters():
            if parameter.requires_grad:
                parameter.add_(0.05 * torch.randn(parameter.shape, generator=generator))
    return model


def image(size: tuple[int, int]) -> Tensor:
    return torch.randn(2, 3, *size, generator=torch.Generator().manual_seed(1))


@pytest.mark.parametrize("size", [(64, 96), (96, 64), (72, 120)])
@pytest.mark.parametrize(
    ("method", "dotted"),
    [
        ("faar", {}),
        ("faar", {"placement.task_path": "own", "decoder.filter": "radial"}),
        ("free_sinewich", {}),
        ("free_sinewich", {"sinewich.conv_size": 3, "sinewich.layers": ["proj", "fc1"]}),
        ("faar_sinewich", {}),
        ("lora_per_task", {}),
    ],
)
@torch.no_grad()
def test_predictions_have_the_image_s_size_and_survive_a_merge(
    method: str, dotted: dict[str, Any], size: tuple[int, int]
) -> None:
    model = moved(MICRO, method, size, **dotted)  # at 72x120 windows are padded in both directions
    predictions = model(image(size))
    assert {task: tuple(y.shape) for task, y in predictions.items()} == {
        task: (2, count, *size) for task, count in CHANNELS.items()
    }
    merged = merge(model)(image(size))
    for task, y in predictions.items():
        torch.testing.assert_close(merged[task], y, rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize("name", [SWIN, VIT])
@torch.no_grad()
def test_larger_backbones_take_them_too(name: str) -> None:
    for method in ("faar", "sinewich_1x1"):
        model = moved(name, method, (64, 128))
        assert all(y.shape[-2:] == (64, 128) for y in model(image((64, 128))).values())


def test_transposing_the_image_s_sides_transposes_the_filters() -> None:
    tall, wide = moved(MICRO, "faar", (96, 64)), moved(MICRO, "faar", (64, 96))
    shapes = [[tuple(f.native) for f in model.modules() if hasattr(f, "native")] for model in (tall, wide)]
    assert shapes[0] and shapes[0] == [native[::-1] for native in shapes[1]]


def test_sides_that_patches_do_not_divide_are_refused_with_near_ones() -> None:
    with pytest.raises(ConfigError, match=r"data\.image_size: must be a multiple of 16.*got 72 \(near: 64 or 80\)"):
        moved(VIT, "faar", (64, 72))
