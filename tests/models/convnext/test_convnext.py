"""ConvNeXt: timm's own maps, without adapters, with them at their start, and adapted beside plain torch."""

from __future__ import annotations

from collections.abc import Iterator
from itertools import pairwise
from pathlib import Path
from typing import Any

import pytest
import timm
import torch
from safetensors.torch import load_file
from torch import Tensor
from torch.func import functional_call

from faar_ray.adapters import AdaptedLinear, DoRA, LowRankFactors, TaskLinears
from faar_ray.errors import ConfigError
from faar_ray.models import merge, parameters_by_part
from faar_ray.models.backbone import family_of
from faar_ray.models.convnext.family import CONVNEXT
from faar_ray.train.preflight import preflight
from tests.models.networks import TASKS, config, image, model, moved, shrunk, timm_maps, timm_weights

LINEARS, IMAGES, SECOND = "test_convnext", "convnext_atto", "convnextv2_atto"
"""MLPs of linears, of 1x1 convolutions, and with ConvNeXt v2's response norm."""
NAMES = [LINEARS, IMAGES, SECOND]
SIZE = (64, 96)


@pytest.fixture(autouse=True)
def double() -> Iterator[None]:
    torch.set_default_dtype(torch.float64)
    yield
    torch.set_default_dtype(torch.float32)


@pytest.mark.parametrize("name", [*NAMES, "test_convnext2", "convnext_zepto_rms_ols", "convnext_tiny"])
def test_maps_are_those_of_timm_whether_it_trains_or_not(name: str, tmp_path: Path) -> None:
    file = timm_weights(name, tmp_path)
    expected = timm_maps(name, file, image(SIZE))
    frozen = model(name, "decoder_only", SIZE, **{"backbone.checkpoint": str(file)})
    for backbone in (frozen.backbone.eval(), frozen.backbone.train()):
        for ours, theirs in zip(backbone.forward_features_list(image(SIZE)), expected, strict=True):
            assert theirs.std() > 1e-3
            torch.testing.assert_close(ours, theirs, rtol=1e-10, atol=1e-10)
    for ours, theirs in zip(frozen.features(image(SIZE)), expected, strict=True):
        torch.testing.assert_close(ours[0].movedim(-1, 1), theirs, rtol=1e-10, atol=1e-10)


def merged_maps(name: str, file: Path, x: Tensor) -> list[Tensor]:
    """timm's own maps after the next stage's halving, the last one as it is."""
    network = timm.create_model(name).eval()
    network.load_state_dict(load_file(file))
    with torch.no_grad():
        maps = [network.stages[0](network.stem(x))]
        for _, stage in pairwise(network.stages):
            maps.append(stage(maps[-1]))
        halved = [stage.downsample(map_) for stage, map_ in zip(list(network.stages)[1:], maps, strict=False)]
    return [*halved, maps[-1]]


@pytest.mark.parametrize("pyramid", ["stages", "merged"])
@pytest.mark.parametrize(
    ("method", "dotted"),
    [
        ("faar", {}),
        ("faar", {"placement.task_path": "shared"}),
        ("lora_per_task", {}),
        ("sinewich_1x1", {"sinewich.conv_size": 3}),
        ("faar_sinewich", {}),
    ],
)
@pytest.mark.parametrize("name", NAMES)
@torch.no_grad()
def test_with_adapters_the_maps_of_every_task_start_as_timm_s(
    name: str, method: str, dotted: dict[str, Any], pyramid: str, tmp_path: Path
) -> None:
    file = timm_weights(name, tmp_path)
    keys = {"backbone.checkpoint": str(file), "backbone.pyramid": pyramid, **dotted}
    expected = (timm_maps if pyramid == "stages" else merged_maps)(name, file, image(SIZE))
    for ours, theirs in zip(model(name, method, SIZE, **keys).features(image(SIZE)), expected, strict=True):
        assert len(ours) == 3
        for stream in ours:
            torch.testing.assert_close(stream.movedim(-1, 1), theirs, rtol=1e-9, atol=1e-10)


@torch.no_grad()
def test_what_a_decoder_takes_over_of_the_halving_changes_no_prediction(tmp_path: Path) -> None:
    """A frozen one, bias and all, is multiplied into the heads' reductions; one that trains is not."""
    keys = {"backbone.checkpoint": str(timm_weights(LINEARS, tmp_path)), "backbone.pyramid": "merged"}
    of = moved(model(LINEARS, **keys))
    taken_over = of(image(SIZE))
    assert [level.deferred_linear is not None for level in of.levels(image(SIZE))] == [True, True, True, False]
    of.backbone.requires_grad_(True)
    assert [level.deferred_linear is not None for level in of.levels(image(SIZE))] == [False] * 4
    for task, prediction in of(image(SIZE)).items():
        torch.testing.assert_close(taken_over[task], prediction)


def changed(weight_OI: Tensor, adapter: DoRA) -> Tensor:
    """DoRA as its paper writes it, the norm a constant."""
    V_OI = weight_OI + adapter.scale * adapter.B_RO.t() @ adapter.A_RI
    return adapter.m_O[:, None] / V_OI.detach().square().sum(1).sqrt()[:, None] * V_OI


@pytest.mark.parametrize("name", NAMES)
@pytest.mark.parametrize("stage", [1, 3])
def test_every_stream_and_every_gradient_is_that_of_timm_s_block_with_the_changed_weights(
    name: str, stage: int, tmp_path: Path
) -> None:
    file = timm_weights(name, tmp_path)
    of = moved(model(name, **{"backbone.checkpoint": str(file)}))
    network = timm.create_model(name).eval()
    network.load_state_dict(load_file(file))
    timm_block, block = network.stages[stage].blocks[-1], of.backbone.layers[stage].blocks[-1]
    x = torch.randn(2, 7, 10, timm_block.conv_dw.in_channels, requires_grad=True)
    shared, streams = block(x)
    assert (shared is None) is (stage == 3)

    frozen = {layer: getattr(timm_block.mlp, layer).weight for layer in ("fc1", "fc2")}

    def expected(adapters: dict[str, Any]) -> Tensor:
        weights = {f"norm.{key}": value for key, value in block.block.norm.named_parameters()}
        if block.block.of_images and name == SECOND:
            weights |= {f"mlp.grn.{key}": value for key, value in block.block.grn.named_parameters()}
        for layer, adapter in adapters.items():
            W_OI = frozen[layer].flatten(1).detach()
            weights[f"mlp.{layer}.weight"] = changed(W_OI, adapter).view_as(frozen[layer])
        out: Tensor = functional_call(timm_block, weights, (x.movedim(-1, 1),))
        return out.movedim(1, -1)

    of_tasks = {layer: dict(linears.of_tasks()) for layer, linears in block.task_linears.items()}
    wanted = [expected({layer: of_tasks[layer][task] for layer in frozen}) for task in TASKS]
    ours = [*streams]
    if shared is not None:
        ours.insert(0, shared)
        wanted.insert(0, expected({layer: getattr(block.block, layer).adapter for layer in frozen}))

    weights = [torch.randn_like(y) for y in ours]
    trained = [x, *(p for p in block.parameters() if p.requires_grad)]
    for y, of_timm in zip(ours, wanted, strict=True):
        torch.testing.assert_close(y, of_timm)
    gradients, of_wanted = (
        torch.autograd.grad(sum((y * w).sum() for y, w in zip(maps, weights, strict=True)), trained)
        for maps in (ours, wanted)
    )
    for gradient, of_timm in zip(gradients, of_wanted, strict=True):
        torch.testing.assert_close(gradient, of_timm, rtol=1e-9, atol=1e-9)


@pytest.mark.parametrize("method", ["faar", "lora_per_task", "sinewich_1x1", "faar_sinewich"])
@pytest.mark.parametrize("pyramid", ["stages", "merged"])
@torch.no_grad()
def test_a_merged_model_predicts_the_same_without_any_adapter(method: str, pyramid: str, tmp_path: Path) -> None:
    keys = {"backbone.checkpoint": str(timm_weights(LINEARS, tmp_path)), "backbone.pyramid": pyramid}
    of = shrunk(moved(model(LINEARS, method, **keys)))
    merged = merge(of)
    assert not [m for m in merged.modules() if isinstance(m, LowRankFactors | AdaptedLinear | TaskLinears)]
    for task, prediction in of(image()).items():
        torch.testing.assert_close(merged(image())[task], prediction)


@pytest.mark.parametrize("method", ["faar", "sinewich_1x1", "full_ft"])
def test_every_trained_parameter_gets_a_gradient(method: str, tmp_path: Path) -> None:
    keys = {"backbone.checkpoint": str(timm_weights(SECOND, tmp_path)), "backbone.pyramid": "merged"}
    of = moved(model(SECOND, method, **keys)).train()
    sum(p.square().mean() for p in of(image()).values()).backward()
    trained = {name: p for name, p in of.named_parameters() if p.requires_grad}
    assert [name for name, p in trained.items() if p.grad is None or not p.grad.any()] == []


def test_light_training_holds_the_stem_and_the_norms_and_no_layer_scale() -> None:
    of = model(LINEARS)
    trained = {name for name, p in of.backbone.named_parameters() if p.requires_grad and "adapter" not in name}
    assert {"patch_embed.0.weight", "layers.1.downsample.norm.0.weight", "layers.2.blocks.0.norm.bias"} <= trained
    assert not [name for name in trained if "gamma" in name or "conv" in name or "fc1" in name]
    assert parameters_by_part(of)["norms"] > 0


@pytest.mark.parametrize("name", [*NAMES, "convnext_tiny", "convnextv2_base", "convnext_large_mlp"])
def test_timm_s_convnexts_are_one_family(name: str) -> None:
    assert family_of(name) is CONVNEXT
    preflight(config(name), data=False)


def test_sides_that_would_lose_a_row_are_refused() -> None:
    with pytest.raises(ConfigError, match="a multiple of 32, the largest stride of test_convnext, got 80"):
        preflight(config(LINEARS, size=(80, 96)), data=False)
