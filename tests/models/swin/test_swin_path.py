"""The quick path through an adapted Swin against plain forms: attention, levels, task paths, autocast, compile."""

from __future__ import annotations

from typing import Any

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from faar_ray.adapters import AdaptedLinear, DoRA, LowRankFactors
from faar_ray.config.trial import TrialConfig
from faar_ray.models import MultiTaskModel, adapter_list, build_model
from faar_ray.models.swin.levels import Level
from faar_ray.models.swin.task_block import TaskBlock, residual
from faar_ray.models.swin.window_attention import _Attention

TASKS = ("semseg", "human_parts", "normals")


def moved(**dotted: Any) -> MultiTaskModel:
    raw = {"backbone": {"pretrained": False}, "ranks": {"init_rank": 4}, "data": {"tasks": TASKS}}
    model = build_model(TrialConfig.resolve(raw, **dotted))
    torch.manual_seed(0)
    for adapter in adapter_list(model):
        nn.init.normal_(adapter.B_RO, std=0.1)
    return model


def image(size: int = 64) -> Tensor:
    return torch.randn(2, 3, size, size, generator=torch.Generator().manual_seed(1))


def gradients(model: MultiTaskModel, predicted: dict[str, Tensor]) -> dict[str, Tensor]:
    model.zero_grad()
    torch.stack([p.float().square().mean() for p in predicted.values()]).sum().backward()
    return {name: p.grad.clone() for name, p in model.named_parameters() if p.grad is not None}


@pytest.mark.parametrize("masks", [1, 4])
def test_attention_and_its_gradients_are_those_of_scaled_dot_products(masks: int) -> None:
    torch.manual_seed(0)
    qkv = torch.randn(8, 5, 3 * 6, dtype=torch.float64, requires_grad=True)
    bias = torch.randn(masks, 2, 5, 5, dtype=torch.float64, requires_grad=True)
    q, k, v = qkv.view(8, 5, 3, 2, 3).permute(2, 0, 3, 1, 4).unbind(0)
    plain = F.scaled_dot_product_attention(q, k, v, attn_mask=bias.repeat(8 // masks, 1, 1, 1))
    plain = plain.transpose(1, 2).flatten(2)
    ours = _Attention.apply(qkv, bias, 2)
    torch.testing.assert_close(ours, plain)
    g = torch.randn_like(plain)
    for a, b in zip(*(torch.autograd.grad(y, (qkv, bias), g) for y in (ours, plain)), strict=True):
        torch.testing.assert_close(a, b)


def test_attention_keeps_its_input_and_its_weights_for_the_backward_pass_and_nothing_else() -> None:
    """The input is kept by the product before it too, where that needs it: no copy of it must be."""
    qkv, bias = torch.randn(8, 5, 3 * 6, requires_grad=True), torch.randn(1, 2, 5, 5)
    kept: list[Tensor] = []

    def pack(tensor: Tensor) -> Tensor:
        kept.append(tensor)
        return tensor

    with torch.autograd.graph.saved_tensors_hooks(pack, lambda t: t):
        _Attention.apply(qkv, bias, 2)
    assert [t.data_ptr() == qkv.data_ptr() for t in kept] == [True, False]
    assert kept[1].shape == (8 * 2, 5, 5)


def test_a_pending_merging_and_a_reduction_in_one_are_the_two_in_turn() -> None:
    torch.manual_seed(0)
    level = Level(torch.randn(3, 2, 4, 6, 16), nn.Linear(16, 8, bias=False))
    reductions = [nn.Conv2d(8, 5, 1, bias=False) for _ in TASKS]
    whole = level.materialised().movedim(-1, 2)
    for x, reduction, reduced in zip(whole, reductions, level.reduced(reductions), strict=True):
        torch.testing.assert_close(reduced, reduction(x))


def test_a_frozen_merging_is_left_to_the_heads_and_a_trained_one_is_not() -> None:
    model = moved()
    assert [level.deferred_linear is not None for level in model.levels(image())] == [True, True, True, False]
    model.backbone.layers[1].downsample.reduction.weight.requires_grad_(True)
    assert [level.deferred_linear is not None for level in model.levels(image())] == [False, True, True, False]


@pytest.mark.parametrize("stage", [0, 3])
@pytest.mark.parametrize("task_layers", [["proj", "fc1", "fc2"], ["qkv", "proj", "fc1", "fc2"], ["fc1"], ["proj"]])
@torch.no_grad()
def test_the_shared_task_path_applies_frozen_weights_to_the_shared_stream_only(
    task_layers: list[str], stage: int
) -> None:
    """out_t = c_t (W x_shared + s B_t A_t x_t) + b in every task-specific layer, the block written out per task."""
    model = moved(**{"placement.task_path": "shared", "placement.task_layers": task_layers}).eval()
    block = model.backbone.layers[stage].blocks[1]
    side, channels = 16 // 2**stage, 24 * 2**stage
    x = torch.randn(2, side, side, channels)
    shared, streams = block(x)
    for t, task in enumerate(TASKS):
        of_shared, of_task = written_out(block, x, task)
        torch.testing.assert_close(streams[t], of_task, rtol=1e-4, atol=1e-5)
    assert (shared is None) == (stage == 3)
    if shared is not None:
        torch.testing.assert_close(shared, of_shared, rtol=1e-4, atol=1e-5)


def written_out(block: TaskBlock, x: Tensor, task: str) -> tuple[Tensor, Tensor]:
    """The shared and one task's stream by timm's own pieces."""
    inner = block.block

    def linear(layer: str, module: nn.Module, pair: tuple[Tensor, Tensor]) -> tuple[Tensor, Tensor]:
        if layer not in block.task_linears:
            return module(pair[0]), module(pair[1])
        task_own = block.task_linears[layer]
        return module(pair[0]), own_path(task_own.base, task_own.adapters[task], *pair)

    normed = inner.norm1(x)
    mixed = []
    for which in (0, 1):  # timm's attention with this stream's qkv and no projection
        attn = inner.attn
        qkv, proj = attn.qkv, attn.proj
        attn.proj = nn.Identity()
        attn.qkv = Pick(lambda w, which=which, qkv=qkv: linear("qkv", qkv, (w, w))[which])
        mixed.append(inner._attn(normed))
        attn.qkv, attn.proj = qkv, proj
    added = linear("proj", inner.attn.proj, (mixed[0], mixed[1]))
    pair = (x + added[0], x + added[1])
    hidden = linear("fc1", inner.mlp.fc1, (inner.norm2(pair[0]), inner.norm2(pair[1])))
    added = linear("fc2", inner.mlp.fc2, (F.gelu(hidden[0]), F.gelu(hidden[1])))
    return pair[0] + added[0], pair[1] + added[1]


class Pick(nn.Module):
    def __init__(self, function: Any) -> None:
        super().__init__()
        self.function = function

    def forward(self, x: Tensor) -> Tensor:
        result: Tensor = self.function(x)
        return result


def own_path(base: nn.Linear, adapter: LowRankFactors, shared: Tensor, task: Tensor) -> Tensor:
    y = F.linear(shared, base.weight) + adapter.scale * task @ adapter.A_RI.t() @ adapter.B_RO
    assert isinstance(adapter, DoRA)
    norm = torch.linalg.vector_norm(base.weight + adapter.scale * adapter.B_RO.t() @ adapter.A_RI, dim=1)
    gained: Tensor = y * (adapter.m_O / norm) + base.bias
    return gained


@pytest.mark.parametrize("task_layers", [["proj", "fc1", "fc2"], ["proj", "fc1"]])
def test_with_the_shared_path_only_adapters_that_reach_an_output_exist(task_layers: list[str]) -> None:
    model = moved(**{"placement.task_path": "shared", "placement.task_layers": task_layers})
    last = {(a.site.layer, a.site.shared) for a in adapter_list(model) if (a.site.stage, a.site.block) == (3, 1)}
    assert (task_layers[-1], True) not in last
    assert {(layer, True) for layer in ["qkv", *task_layers[:-1]]} <= last
    gradients(model, model(image()))
    assert [a.site for a in adapter_list(model) for p in a.parameters() if p.grad is None or not p.grad.any()] == []


@pytest.mark.parametrize("path", ["own", "shared"])
def test_at_the_start_both_task_paths_are_the_frozen_backbone(path: str) -> None:
    model = moved(**{"placement.task_path": path}).eval()
    for adapter in adapter_list(model):
        nn.init.zeros_(adapter.B_RO)
    frozen = build_model(
        TrialConfig.resolve({"method": "decoder_only", "backbone": {"pretrained": False}, "data": {"tasks": TASKS}})
    ).eval()
    with torch.no_grad():
        for ours, theirs in zip(model.features(image()), frozen.features(image()), strict=True):
            torch.testing.assert_close(ours, theirs.expand_as(ours), rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("path", ["own", "shared"])
def test_under_bf16_autocast_a_step_is_near_that_of_fp32(path: str) -> None:
    model = moved(**{"placement.task_path": path, "decoder.kind": "hrnet"})
    exact = gradients(model, model(image()))
    with torch.autocast("cpu", dtype=torch.bfloat16):
        predicted = model(image())
    near = gradients(model, predicted)
    assert near.keys() == exact.keys()
    assert all(near[name].dtype == torch.float32 for name in near)
    ours, theirs = (torch.cat([g.flatten() for g in result.values()]) for result in (near, exact))
    assert torch.cosine_similarity(ours, theirs, dim=0) > 0.98


@pytest.mark.parametrize("path", ["own", "shared"])
def test_a_compiled_model_gives_the_same_outputs_and_gradients_under_any_prefix(path: str) -> None:
    model = moved(**{"placement.task_path": path, "decoder.kind": "hrnet"}).eval()
    torch.compiler.reset()
    compilations = []

    def backend(graph: torch.fx.GraphModule, inputs: list[Tensor]) -> Any:
        compilations.append(graph)
        return graph.forward

    compiled = torch.compile(model, backend=backend)
    for prefix in (4, 2, 3):
        for adapter in adapter_list(model):
            adapter.mask_prefix(prefix)
        ours, plain = compiled(image()), model(image())
        torch.testing.assert_close(ours, plain, rtol=1e-4, atol=1e-4)
        result, expected = gradients(model, compiled(image())), gradients(model, model(image()))
        for name in expected:
            torch.testing.assert_close(result[name], expected[name], rtol=1e-3, atol=1e-5)
        if prefix == 4:
            first = len(compilations)
    assert len(compilations) == first


def test_a_dropped_image_keeps_its_residual_and_the_others_are_scaled() -> None:
    class Half(nn.Module):
        drop_prob = 0.5

    x, y = torch.zeros(40, 3, 2), torch.ones(40, 3, 2)
    out = residual(x, y, Half())
    assert {float(v) for v in out.unique()} == {0.0, 2.0}
    assert all(len(row.unique()) == 1 for row in out)
    assert torch.equal(residual(x, y, Half().eval()), y)


def test_adapted_linears_are_found_where_timm_has_its_own() -> None:
    block = moved().backbone.layers[0].blocks[0]
    assert all(isinstance(m, AdaptedLinear) for m in (block.attn.qkv, block.attn.proj, block.mlp.fc1, block.mlp.fc2))
