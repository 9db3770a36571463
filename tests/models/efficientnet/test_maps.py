"""Maps of convolutional backbones: timm's own, without adapters, with them at their start, and in training."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file, save_file

from faar_ray.config.trial import BackboneConfig
from faar_ray.errors import DataError
from faar_ray.models import parameters_by_part
from faar_ray.models.backbone import build_backbone, digest_of_weights
from tests.models.networks import B0, EDGE, LITE, SMALL, Size, image, model, moved, timm_maps, timm_weights

ODD = (75, 101)
"""Sides that no stride divides."""


@pytest.fixture(autouse=True)
def double() -> Iterator[None]:
    torch.set_default_dtype(torch.float64)
    yield
    torch.set_default_dtype(torch.float32)


@pytest.mark.parametrize("size", [(64, 96), ODD])
@pytest.mark.parametrize(
    "name",
    [LITE, B0, EDGE, SMALL, "test_efficientnet_gn", "tf_mixnet_s", "tf_efficientnetv2_b0", "mobilenetv4_conv_small"],
)
def test_maps_are_those_of_timm_whether_it_trains_or_not(name: str, size: Size, tmp_path: Path) -> None:
    file = timm_weights(name, tmp_path)
    expected = timm_maps(name, file, image(size))
    frozen = model(name, "decoder_only", size, **{"backbone.checkpoint": str(file)})
    for backbone in (frozen.backbone.eval(), frozen.backbone.train()):
        for ours, theirs in zip(backbone.forward_features_list(image(size)), expected, strict=True):
            assert theirs.std() > 1e-3
            torch.testing.assert_close(ours, theirs, rtol=1e-10, atol=1e-10)
    for ours, theirs in zip(frozen.features(image(size)), expected, strict=True):
        torch.testing.assert_close(ours[0].movedim(-1, 1), theirs, rtol=1e-10, atol=1e-10)


@pytest.mark.parametrize(
    ("method", "dotted"),
    [
        ("faar", {}),
        ("faar", {"placement.task_path": "shared"}),
        ("faar", {"placement.task_layers": ["fc2"]}),
        ("lora_per_task", {}),
        ("sinewich_1x1", {}),
        ("sinewich_1x1", {"sinewich.conv_size": 3}),
        ("faar_sinewich", {}),
    ],
)
@pytest.mark.parametrize("name", [EDGE, SMALL])
@torch.no_grad()
def test_with_adapters_the_maps_of_every_task_start_as_timm_s(
    name: str, method: str, dotted: dict[str, Any], tmp_path: Path
) -> None:
    file = timm_weights(name, tmp_path)
    adapted = model(name, method, ODD, **{"backbone.checkpoint": str(file)}, **dotted)
    for ours, theirs in zip(adapted.features(image(ODD)), timm_maps(name, file, image(ODD)), strict=True):
        assert len(ours) == 3
        for stream in ours:
            torch.testing.assert_close(stream.movedim(-1, 1), theirs, rtol=1e-9, atol=1e-10)


def test_norms_keep_their_statistics_so_parts_of_a_batch_are_what_they_are_in_it(tmp_path: Path) -> None:
    of = model(LITE, **{"backbone.checkpoint": str(timm_weights(LITE, tmp_path))}).train()
    statistics = {name: value.clone() for name, value in of.backbone.named_buffers()}
    whole = of.features(image())
    parts = [of.features(image()[i : i + 1]) for i in range(2)]
    for map_of_all, *maps in zip(whole, *parts, strict=True):
        torch.testing.assert_close(torch.cat(maps, dim=1), map_of_all)
    for name, value in of.backbone.named_buffers():
        assert torch.equal(value, statistics[name]), name


def test_light_training_holds_the_stem_and_the_norms() -> None:
    of = model(LITE)
    norms = [m for m in of.backbone.modules() if isinstance(m, torch.nn.BatchNorm2d)]
    _, *others = norms
    parts = parameters_by_part(of)
    assert all(p.requires_grad for norm in norms for p in norm.parameters())
    assert parts["norms"] == 2 * sum(norm.num_features for norm in norms)
    assert parts["other"] == of.backbone.patch_embed.conv.weight.numel() == 32 * 3 * 9
    assert len(others) == 2 + 3 * 15  # the block without an expansion, and the other 15
    frozen = {n for n, p in of.backbone.named_parameters() if not p.requires_grad}
    assert {"layers.0.blocks.0.between.conv_dw.weight", "layers.0.blocks.1.fc1.base.weight"} <= frozen


def test_statistics_are_part_of_what_tells_weights_from_others(tmp_path: Path) -> None:
    file = timm_weights(EDGE, tmp_path)
    weights = load_file(file)
    weights["blocks.1.0.bn1.running_mean"][0] += 1
    save_file(weights, tmp_path / "other.safetensors")
    digests = {
        digest_of_weights(build_backbone(BackboneConfig(name=EDGE, checkpoint=str(path)), (64, 64), 0))
        for path in (file, tmp_path / "other.safetensors")
    }
    assert len(digests) == 2


def test_weights_of_a_trunk_alone_do_and_those_of_another_network_are_named(tmp_path: Path) -> None:
    weights = load_file(timm_weights(EDGE, tmp_path))
    others = ("classifier.", "conv_head.", "bn2.")
    trunk = {k: v for k, v in weights.items() if not k.startswith(others) and "num_batches" not in k}
    save_file(trunk, tmp_path / "trunk.safetensors")
    build_backbone(BackboneConfig(name=EDGE, checkpoint=str(tmp_path / "trunk.safetensors")), (64, 64), 0)

    del trunk["blocks.1.0.bn1.running_mean"]
    save_file(trunk, tmp_path / "less.safetensors")
    with pytest.raises(DataError, match=r"missing: blocks\.1\.0\.bn1\.running_mean \(1\)"):
        build_backbone(BackboneConfig(name=EDGE, checkpoint=str(tmp_path / "less.safetensors")), (64, 64), 0)


def test_an_image_that_is_dropped_from_a_block_passes_it_by_in_each_stream_apart() -> None:
    of = moved(model(LITE, **{"backbone.drop_path": 0.9}))
    block = of.backbone.layers[2].blocks[-1]  # task-specific, with a skip connection
    x = torch.randn(64, 2, 3, 112)
    _, plain = block(x)
    of.train()
    torch.manual_seed(0)
    _, dropped = block(x)
    rate = block.block.drop_path.drop_prob
    change = (plain - x) / (1 - rate)
    passed_by = (dropped - x).flatten(2).norm(dim=-1) < 1e-9
    torch.testing.assert_close(dropped, x + torch.where(passed_by[..., None, None, None], 0.0, change))
    assert passed_by.any()
    assert not passed_by.all()
    assert not torch.equal(passed_by[0], passed_by[1])
