"""Backbones beyond swin_micro: other Swins, ViTs in quarters, and those that are refused."""

from __future__ import annotations

from typing import Any

import pytest
import timm
import torch
from timm.models.vision_transformer import VisionTransformer
from torch import Tensor

from faar_ray.config.trial import TrialConfig
from faar_ray.errors import ConfigError
from faar_ray.models import MultiTaskModel, adapter_list, build_model, parameters_by_part
from faar_ray.models.vit.vit import QuarteredViT
from faar_ray.models.vit.vit_block import ViTTaskBlock

VIT = "vit_tiny_patch16_224"


def model(name: str, method: str = "faar", side: int = 64, **dotted: Any) -> MultiTaskModel:
    raw = {"method": method, "backbone": {"name": name, "pretrained": False}, "data": {"image_size": side}}
    return build_model(TrialConfig.resolve(raw, **{"ranks.init_rank": 2, "decoder.width": 2, **dotted})).eval()


def image(side: int = 64) -> Tensor:
    return torch.randn(1, 3, side, side, generator=torch.Generator().manual_seed(0))


@pytest.mark.parametrize("name", ["swin_s3_tiny_224", "swin_tiny_patch4_window7_224.ms_in1k"])
@torch.no_grad()
def test_other_swins_are_adapted_and_start_as_they_are(name: str) -> None:
    adapted, frozen = model(name)(image()), model(name, "decoder_only")(image())
    for task, prediction in frozen.items():
        torch.testing.assert_close(adapted[task], prediction, rtol=1e-3, atol=1e-4)


@pytest.mark.parametrize("task_layers", [["proj", "fc1", "fc2"], ["qkv", "proj", "fc1", "fc2"]])
@torch.no_grad()
def test_a_vit_starts_as_it_is_and_task_blocks_are_the_last_of_each_quarter(task_layers: list[str]) -> None:
    adapted = model(VIT, **{"placement.task_layers": task_layers})
    frozen = model(VIT, "decoder_only")
    for ours, theirs in zip(adapted.features(image()), frozen.features(image()), strict=True):
        torch.testing.assert_close(ours, theirs.expand_as(ours), rtol=1e-3, atol=1e-4)
    for quarter in adapted.backbone.layers:
        assert [isinstance(block, ViTTaskBlock) for block in quarter.blocks] == [False, False, True]
    assert {a.site.block for a in adapter_list(adapted) if not a.site.shared} == {2}


@torch.no_grad()
def test_the_maps_of_a_vit_are_those_of_timm_after_each_quarter() -> None:
    ours = model(VIT, "decoder_only")
    backbone = ours.backbone
    torch.manual_seed(0)
    vit = timm.create_model(VIT, num_classes=0, img_size=64)
    assert isinstance(vit, VisionTransformer)
    blocks = [block for quarter in backbone.layers for block in quarter.blocks]
    for theirs, mine in zip(vit.blocks, blocks, strict=True):
        theirs.load_state_dict(mine.state_dict())
    for part in ("patch_embed", "norm_pre"):
        getattr(vit, part).load_state_dict(getattr(backbone.stem, part).state_dict())
    vit.cls_token.copy_(backbone.stem.cls_token)
    vit.pos_embed.copy_(backbone.stem.pos_embed)
    expected = vit.forward_intermediates(image(), indices=[2, 5, 8, 11], norm=False, intermediates_only=True)
    x = backbone.tokens(image())
    for quarter, theirs in zip(backbone.layers, expected, strict=True):
        for block in quarter.blocks:
            x = block(x)
        torch.testing.assert_close(backbone.grid(x[None], (64, 64))[0], theirs)


@pytest.mark.parametrize(("pyramid", "sides"), [("merged", [8, 4, 2, 2]), ("stages", [16, 8, 4, 2])])
@torch.no_grad()
def test_the_maps_of_a_vit_have_the_strides_of_a_swin(pyramid: str, sides: list[int]) -> None:
    result = model(VIT, **{"backbone.pyramid": pyramid}).features(image())
    assert [tuple(level.shape[2:4]) for level in result] == [(side, side) for side in sides]


@torch.no_grad()
def test_an_adapted_vit_block_equals_a_timm_block_with_the_adapted_weights_written_in() -> None:
    torch.manual_seed(0)
    of = model(VIT, **{"placement.task_layers": ["qkv", "proj", "fc1", "fc2"]})
    for adapter in adapter_list(of):
        adapter.B_RO.normal_(std=0.1)
    task_block, plain = of.backbone.layers[0].blocks[2], model(VIT, "decoder_only").backbone.layers[0].blocks[2]
    x = torch.randn(2, 17, 192)
    shared, streams = task_block(x)
    assert shared.shape == x.shape
    for t, task in enumerate(("semseg", "human_parts", "normals")):
        for layer, parent in {"qkv": "attn", "proj": "attn", "fc1": "mlp", "fc2": "mlp"}.items():
            linears = task_block.task_linears[layer]
            getattr(getattr(plain, parent), layer).weight.copy_(linears.adapters[task].adapt(linears.base.weight))
        torch.testing.assert_close(streams[t], plain(x), rtol=1e-4, atol=1e-4)


def test_every_adapter_of_a_vit_gets_a_gradient() -> None:
    of = model(VIT)
    for adapter in adapter_list(of):
        torch.nn.init.normal_(adapter.B_RO, std=0.1)
    sum(p.square().mean() for p in of(image()).values()).backward()
    without = [a.site for a in adapter_list(of) for p in a.parameters() if p.grad is None or not p.grad.any()]
    assert without == []


def test_light_training_of_a_vit_holds_patches_norms_and_positions() -> None:
    of = model(VIT, "lora")
    assert isinstance(of.backbone, QuarteredViT)
    assert of.backbone.stem.pos_embed.requires_grad
    parts = parameters_by_part(of)
    assert parts["norms"] == 24 * 2 * 192
    assert parts["other"] == sum(p.numel() for p in of.backbone.stem.patch_embed.parameters()) + 17 * 192


@torch.no_grad()
def test_a_vit_may_serve_an_ensemble() -> None:
    of = model(VIT, "lora_per_task")
    frozen = model(VIT, "decoder_only")(image())
    for task, prediction in of(image()).items():
        torch.testing.assert_close(prediction, frozen[task], rtol=1e-3, atol=1e-4)


@pytest.mark.parametrize(
    ("name", "reason"),
    [
        ("swinv2_tiny_window8_256", "multiplies by qkv.weight itself"),
        ("resnet18", "must be swin_micro, a timm Swin"),
        ("beit_base_patch16_224", "must be swin_micro, a timm Swin"),
        ("vit_srelpos_small_patch16_224", "must be swin_micro, a timm Swin"),
        ("vit_small_patch16_36x1_224", ""),
        ("vit_small_patch16_18x2_224", "no plain ViT blocks"),
        ("vit_giant_patch14_dinov2", "its attention or MLP is gated"),
        ("vit_base_r50_s16_224", r"a network makes its patches \(HybridEmbed\)"),
        ("vit_base_mci_224", r"a network makes its patches \(HybridEmbed\)"),
        ("nothing_of_this_name", "must be swin_micro, a timm Swin"),
    ],
)
def test_backbones_that_cannot_be_adapted_are_refused_with_the_reason(name: str, reason: str) -> None:
    if not reason:
        model(name, "decoder_only", side=32)
        return
    with pytest.raises(ConfigError, match=reason):
        model(name)


@pytest.mark.parametrize(("name", "side"), [("swin_micro", 50), ("swin_tiny_patch4_window7_224", 225), (VIT, 100)])
def test_an_image_that_patches_do_not_divide_is_refused_with_the_sizes_nearby(name: str, side: int) -> None:
    with pytest.raises(ConfigError, match=rf"data\.image_size: must be a multiple of \d+, .* got {side} \(near: "):
        model(name, side=side)


@pytest.mark.parametrize("side", [36, 60, 100])
@torch.no_grad()
def test_windows_that_do_not_divide_the_grid_are_padded(side: int) -> None:
    for task, prediction in model("swin_micro", side=side)(image(side)).items():
        assert prediction.shape[-2:] == (side, side), task
