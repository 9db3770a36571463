"""timm's Swins (v1) from tiny to large, at both window sizes and their own image sizes, without memory for weights."""

from __future__ import annotations

import pytest
import torch

from faar_ray.config.trial import TrialConfig
from faar_ray.models import MultiTaskModel, adapter_list, build_model, parameters_by_part

TASKS = ["semseg", "normals", "depth"]
SIZES = [
    ("swin_tiny_patch4_window7_224", 224, 96, (2, 2, 6, 2), 27_519_354),
    ("swin_small_patch4_window7_224", 224, 96, (2, 2, 18, 2), 48_837_258),
    ("swin_base_patch4_window7_224", 224, 128, (2, 2, 18, 2), 86_743_224),
    ("swin_base_patch4_window12_384", 384, 128, (2, 2, 18, 2), 86_878_584),
    ("swin_large_patch4_window7_224", 224, 192, (2, 2, 18, 2), 194_995_476),
    ("swin_large_patch4_window12_384", 384, 192, (2, 2, 18, 2), 195_198_516),
]
"""Name, side of its images, embedding, blocks, and Microsoft's count of parameters without the classifier."""


def on_meta(name: str, side: int, method: str) -> MultiTaskModel:
    raw = {
        "method": method,
        "backbone": {"name": name, "pretrained": False},
        "data": {"name": "nyud", "tasks": TASKS, "image_size": side},
        "ranks": {"init_rank": 4},
    }
    with torch.device("meta"):
        return build_model(TrialConfig.resolve(raw)).eval()


@pytest.mark.parametrize(("name", "side", "width", "depths", "count"), SIZES)
@torch.no_grad()
def test_every_size_of_swin_is_adapted_at_its_own_image_size(
    name: str, side: int, width: int, depths: tuple[int, ...], count: int
) -> None:
    frozen, of = on_meta(name, side, "decoder_only"), on_meta(name, side, "faar")
    last_norm = 2 * 8 * width
    assert sum(p.numel() for p in frozen.backbone.parameters()) == count - last_norm

    maps = frozen.features(torch.empty(1, 3, side, side, device="meta"))
    channels = (2 * width, 4 * width, 8 * width, 8 * width)
    cells = (side // 8, side // 16, side // 32, side // 32)
    expected = [(1, 1, cell, cell, of_map) for cell, of_map in zip(cells, channels, strict=True)]
    assert [tuple(of_stage.shape) for of_stage in maps] == expected

    adapters = adapter_list(of)
    assert len([a for a in adapters if not a.site.shared]) == 4 * 3 * len(TASKS)  # proj, fc1, fc2
    assert {a.site.block for a in adapters if a.site.stage == 2 and not a.site.shared} == {depths[2] - 1}
    blocks_with_all = sum(depths) - 1
    assert len([a for a in adapters if a.site.shared]) == 4 * blocks_with_all + 1  # in the last, qkv alone
    assert parameters_by_part(of)["adapters"] == sum(p.numel() for a in adapters for p in a.factors)
