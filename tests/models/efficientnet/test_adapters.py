"""Adapted pointwise convolutions beside timm's blocks with the changed weights written in, by plain autograd."""

from __future__ import annotations

from collections.abc import Iterator
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import pytest
import timm
import torch
from safetensors.torch import load_file
from torch import Tensor, nn
from torch.func import functional_call

from faar_ray.adapters import AdaptedLinear, DoRA, LowRankFactors, TaskLinears
from faar_ray.errors import ConfigError
from faar_ray.export.adapter_file import write_adapter
from faar_ray.export.merged_file import read_merged, write_merged
from faar_ray.export.rank_pattern import rank_pattern
from faar_ray.export.read import load_model, read_adapter_file
from faar_ray.models import adapter_list, build_model, merge
from faar_ray.models.backbone import family_of
from faar_ray.models.channels_last import ConvTaskBlock, run_blocks
from faar_ray.models.efficientnet.convnet import stages_of
from faar_ray.seeding import seeded
from tests.models.networks import B0, EDGE, LITE, SMALL, TASKS, config, image, model, moved, shrunk, timm_weights

Double = Iterator[None]


@pytest.fixture
def double() -> Double:
    torch.set_default_dtype(torch.float64)
    yield
    torch.set_default_dtype(torch.float32)


CONVOLUTIONS = {"fc1": "conv_pw.weight", "fc2": "conv_pwl.weight"}
"""Where timm's last blocks have the weights of layers."""


def changed(weight_OI: Tensor, adapter: DoRA) -> Tensor:
    """DoRA as its paper writes it, the norm a constant; (O, I, 1, 1)."""
    V_OI = weight_OI + adapter.scale * adapter.B_RO.t() @ adapter.A_RI
    norm_O = V_OI.detach().square().sum(1).sqrt()
    return (adapter.m_O / norm_O)[:, None, None, None] * V_OI[..., None, None]


def of_task(linears: dict[str, TaskLinears], task: str) -> dict[str, DoRA]:
    adapters = {layer: dict(of_tasks.of_tasks())[task] for layer, of_tasks in linears.items()}
    return {layer: adapter for layer, adapter in adapters.items() if isinstance(adapter, DoRA)}


def reference(block: nn.Module, ours: Any, x_BCHW: Tensor, adapters: dict[str, DoRA]) -> Tensor:
    """timm's block on an image, with its pointwise weights changed and the norms' parameters those of ours."""
    weights = {}
    for layer, adapter in adapters.items():
        module = getattr(ours, layer)
        frozen = module.base.weight if isinstance(module, AdaptedLinear) else module.weight
        weights[CONVOLUTIONS[layer]] = changed(frozen, adapter)
    for section in (ours.before, ours.between, ours.after):
        for name, module in section.named_children():
            if name.startswith("bn"):
                weights |= {f"{name}.{key}": value for key, value in module.named_parameters()}
    out: Tensor = functional_call(block, weights, (x_BCHW,))
    return out


@pytest.mark.parametrize("name", [LITE, B0, EDGE])
@pytest.mark.parametrize("stage", [0, 2, 3])
def test_every_stream_and_every_gradient_is_that_of_convolutions_with_the_changed_weights(
    name: str, stage: int, tmp_path: Path, double: Double
) -> None:
    file = timm_weights(name, tmp_path)
    of = moved(model(name, **{"backbone.checkpoint": str(file)}))
    network = timm.create_model(name).eval()
    network.load_state_dict(load_file(file))
    timm_block = stages_of(network)[stage][-1]
    block = of.backbone.layers[stage].blocks[-1]
    assert isinstance(block, ConvTaskBlock)
    assert block.continues is (stage < 3)

    channels = timm_block.conv_pw.in_channels if hasattr(timm_block, "conv_pw") else timm_block.conv_exp.in_channels
    x = torch.randn(2, 7, 10, channels, requires_grad=True)
    shared, streams = block(x)
    own = {layer: linears for layer, linears in block.task_linears.items() if isinstance(linears, TaskLinears)}
    expected = [reference(timm_block, block.block, x.movedim(-1, 1), of_task(own, task)) for task in TASKS]
    if shared is None:
        ours = list(streams)
    else:
        ours = [shared, *streams]
        adapters = {layer: getattr(block.block, layer).adapter for layer in own}
        expected.insert(0, reference(timm_block, block.block, x.movedim(-1, 1), adapters))
    assert set(own) == ({"fc2"} if name == EDGE and stage == 0 else {"fc1", "fc2"})

    weights = [torch.randn_like(y) for y in ours]
    trained = [x, *(p for p in block.parameters() if p.requires_grad)]
    for y, wanted in zip(ours, expected, strict=True):
        torch.testing.assert_close(y.movedim(-1, 1), wanted)
    gradients = torch.autograd.grad(sum((y * w).sum() for y, w in zip(ours, weights, strict=True)), trained)
    wanted_gradients = torch.autograd.grad(
        sum((y.movedim(1, -1) * w).sum() for y, w in zip(expected, weights, strict=True)), trained
    )
    for gradient, wanted in zip(gradients, wanted_gradients, strict=True):
        torch.testing.assert_close(gradient, wanted, rtol=1e-9, atol=1e-9)


@torch.no_grad()
def test_a_block_without_a_task_specific_layer_at_a_stage_s_end_serves_every_stream(
    tmp_path: Path, double: Double
) -> None:
    """mobilenetv3 ends with an expansion alone: with task adapters on fc2, it stands behind the task-specific block."""
    file = timm_weights(SMALL, tmp_path)
    dotted = {"placement.task_layers": ["fc2"], "backbone.checkpoint": str(file)}
    of = moved(model(SMALL, **dotted))
    stage = of.backbone.layers[3]
    assert [isinstance(block, ConvTaskBlock) for block in stage.blocks] == [False, False, True, False]
    assert {a.site.block for a in adapter_list(of) if a.site.stage == 3 and not a.site.shared} == {2}
    behind = [a.site for a in adapter_list(of) if (a.site.stage, a.site.block) == (3, 3)]
    assert [(site.layer, site.task) for site in behind] == [("fc1", "shared")]
    y = torch.randn(2, 4, 5, stage.blocks[0].fc1.base.in_features)
    _, together = run_blocks(stage.blocks, y)
    assert len(together) == 3
    assert not torch.allclose(together[0], together[1])
    for block in stage.blocks[:2]:
        y = block(y)
    for stream, of_task in zip(together, stage.blocks[2](y)[1], strict=True):
        torch.testing.assert_close(stream, stage.blocks[3](of_task))


@pytest.mark.parametrize(
    ("method", "dotted"),
    [
        ("faar", {}),
        ("faar", {"placement.task_path": "shared"}),
        ("faar", {"placement.task_layers": ["fc2"]}),
        ("lora_per_task", {}),
        ("sinewich_1x1", {"sinewich.conv_size": 3}),
        ("faar_sinewich", {}),
        ("full_ft", {}),
    ],
)
def test_every_trained_parameter_gets_a_gradient(method: str, dotted: dict[str, Any], tmp_path: Path) -> None:
    of = moved(model(SMALL, method, **{"backbone.checkpoint": str(timm_weights(SMALL, tmp_path))}, **dotted)).train()
    sum(p.square().mean() for p in of(image()).values()).backward()
    trained = {name: p for name, p in of.named_parameters() if p.requires_grad}
    assert [name for name, p in trained.items() if p.grad is None or not p.grad.any()] == []


@pytest.mark.parametrize(
    ("method", "dotted"),
    [
        ("faar", {}),
        ("lora", {"placement.task_layers": ["fc2"]}),
        ("lora_per_task", {}),
        ("sinewich_1x1", {}),
        ("sinewich_1x1", {"sinewich.conv_size": 3}),
        ("faar_sinewich", {}),
    ],
)
@pytest.mark.parametrize("name", [EDGE, SMALL])
@torch.no_grad()
def test_a_merged_model_predicts_the_same_without_any_adapter(
    name: str, method: str, dotted: dict[str, Any], tmp_path: Path, double: Double
) -> None:
    of = shrunk(moved(model(name, method, **{"backbone.checkpoint": str(timm_weights(name, tmp_path))}, **dotted)))
    merged = merge(of)
    assert not [m for m in merged.modules() if isinstance(m, LowRankFactors | AdaptedLinear | TaskLinears)]
    for task, prediction in of(image()).items():
        torch.testing.assert_close(merged(image())[task], prediction)


@pytest.mark.skipif(find_spec("peft") is None, reason="peft is optional")
@pytest.mark.parametrize("name", [SMALL, "test_convnext"])
@torch.no_grad()
def test_hf_peft_s_dora_on_timm_s_own_layers_computes_the_same_maps(name: str, double: Double) -> None:
    from peft import LoraConfig, inject_adapter_in_model

    of_trial, peft_module = config(name, "dora", **{"placement.task_layers": []}), family_of(name).peft_module
    of = shrunk(build_model(of_trial)).eval()
    for adapter in adapter_list(of):
        adapter.B_RO.normal_(std=0.1)
    ranks = {adapter.site.place: adapter.rank for adapter in adapter_list(of)}
    with seeded(of_trial.seed, "backbone"):
        network = timm.create_model(name, num_classes=0)
    inject_adapter_in_model(LoraConfig(**rank_pattern(ranks, of_trial)), network)
    for adapter in adapter_list(of):
        assert isinstance(adapter, DoRA)
        assert peft_module is not None
        site = adapter.site
        layer: Any = network.get_submodule(peft_module(name, site.stage, site.block, site.layer))
        theirs = [layer.lora_A["default"], layer.lora_B["default"], layer.lora_magnitude_vector["default"]]
        ours = [adapter.A_RI, adapter.B_RO.t(), adapter.m_O.mul_(1.3)]
        for module, values in zip(theirs, ours, strict=True):
            module.weight.copy_(values.reshape(module.weight.shape))
    maps = network.eval().forward_intermediates(image(), intermediates_only=True)[-4:]
    for ours_of_stage, wanted in zip(of.features(image()), maps, strict=True):
        torch.testing.assert_close(ours_of_stage[0].movedim(-1, 1), wanted)


def test_bf16_trains_every_parameter(tmp_path: Path) -> None:
    of = model(EDGE, **{"backbone.checkpoint": str(timm_weights(EDGE, tmp_path))}).train()
    full = of(image())
    with torch.autocast("cpu", torch.bfloat16):
        half = of(image())
    for task, prediction in half.items():
        assert prediction.dtype == torch.bfloat16
        assert (prediction.float() - full[task]).norm() < 0.1 * full[task].norm()
    sum(p.float().square().mean() for p in half.values()).backward()
    gradients = [p.grad for p in of.parameters() if p.requires_grad]
    assert all(g is not None and g.isfinite().all() for g in gradients)


def test_a_shared_task_path_cannot_be_merged() -> None:
    with pytest.raises(ConfigError, match=r"placement\.task_path: shared cannot be merged"):
        merge(model(EDGE, **{"placement.task_path": "shared"}))


@torch.no_grad()
def test_files_of_a_trained_model_give_its_predictions_back(tmp_path: Path) -> None:
    of_trial = config(EDGE, **{"backbone.checkpoint": str(timm_weights(EDGE, tmp_path)), "decoder.xt_cons": False})
    of = shrunk(moved(build_model(of_trial).eval()))
    write_adapter(tmp_path / "adapter.safetensors", of, of_trial)
    write_merged(tmp_path / "merged.safetensors", of, of_trial, "depth")
    again = load_model(read_adapter_file(tmp_path / "adapter.safetensors"), tmp_path / "adapter.safetensors")
    for task, prediction in of(image()).items():
        torch.testing.assert_close(again(image())[task], prediction)
    alone = read_merged(tmp_path / "merged.safetensors")(image())
    assert list(alone) == ["depth"]
    torch.testing.assert_close(alone["depth"], of(image())["depth"], rtol=1e-4, atol=1e-4)
