"""Plain ViTs with what timm gives them: class and register tokens, layer scales, norms before the blocks."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import timm
import torch
from safetensors.torch import load_file
from torch import Tensor, nn
from torch.func import functional_call

from faar_ray.adapters import AdaptedLinear, LowRankFactors, TaskLinears
from faar_ray.export.rank_pattern import rank_pattern
from faar_ray.models import MultiTaskModel, adapter_list, merge
from faar_ray.models.timm_weights import outline
from faar_ray.models.vit.vit import MultiTaskViT
from faar_ray.models.vit.vit_block import ViTTaskBlock
from tests.models.networks import TASKS, Size, config, model, moved, shrunk, timm_weights

VARIANTS: dict[str, Size] = {
    "test_vit": (64, 96),
    "test_vit2": (64, 96),
    "test_vit4": (64, 96),
    "vit_small_patch14_dinov2": (168, 224),
    "vit_small_patch14_reg4_dinov2": (168, 224),
    "deit_tiny_distilled_patch16_224": (96, 128),
    "deit3_small_patch16_224": (96, 128),
    "vit_xsmall_patch16_clip_224": (96, 128),
    "vit_wee_patch16_reg1_gap_256": (96, 128),
}
"""A size whose table of positions is none that timm has."""
SMALL = ["test_vit", "test_vit2", "test_vit4"]
LINEARS = {"qkv": "attn.qkv", "proj": "attn.proj", "fc1": "mlp.fc1", "fc2": "mlp.fc2"}


@pytest.fixture(autouse=True)
def double() -> Iterator[None]:
    torch.set_default_dtype(torch.float64)
    yield
    torch.set_default_dtype(torch.float32)


def vit(name: str, method: str, folder: Path, **dotted: Any) -> MultiTaskModel:
    file = folder / f"{name}.safetensors"
    if not file.exists():
        timm_weights(name, folder)
    return model(name, method, VARIANTS[name], **{"backbone.checkpoint": str(file), **dotted})


def image(name: str) -> Tensor:
    return torch.randn(2, 3, *VARIANTS[name], generator=torch.Generator().manual_seed(1))


@torch.no_grad()
def timm_maps(name: str, folder: Path) -> list[Tensor]:
    """timm's own maps after each quarter of the blocks, (B, C, H, W), its table of positions resized by timm."""
    weights = load_file(folder / f"{name}.safetensors")
    network: Any = timm.create_model(name, img_size=VARIANTS[name], pretrained=False).eval()
    network.load_state_dict(timm.models.vision_transformer.checkpoint_filter_fn(weights, network))
    depth = len(network.blocks)
    ends = [round(quarter * depth / 4) - 1 for quarter in (1, 2, 3, 4)]
    maps: list[Tensor] = network.forward_intermediates(image(name), indices=ends, norm=False, intermediates_only=True)
    return maps


@torch.no_grad()
def quarters(of: MultiTaskModel, x: Tensor) -> list[Tensor]:
    """The maps of every stream after each quarter, at the patch's stride: (S, B, C, H, W)."""
    tokens: Any = of.backbone.tokens(x)
    maps = []
    for quarter in of.backbone.layers:
        for block in quarter.blocks:
            if isinstance(block, ViTTaskBlock):
                tokens, streams = block(tokens)
            else:
                tokens = block(tokens)
                streams = tokens[None]
        maps.append(of.backbone.grid(streams, (x.shape[-2], x.shape[-1])))
    return maps


@pytest.mark.parametrize("name", VARIANTS)
def test_maps_are_those_of_timm_without_adapters_and_with_them_at_their_start(name: str, tmp_path: Path) -> None:
    frozen = vit(name, "decoder_only", tmp_path)
    assert isinstance(frozen, MultiTaskViT)
    adapted = vit(name, "faar", tmp_path)
    expected = timm_maps(name, tmp_path)
    everything = zip(quarters(frozen, image(name)), quarters(adapted, image(name)), expected, strict=True)
    for ours, with_adapters, theirs in everything:
        assert theirs.std() > 1e-3
        torch.testing.assert_close(ours[0], theirs, rtol=1e-10, atol=1e-10)
        assert len(with_adapters) == len(TASKS)
        for stream in with_adapters:
            torch.testing.assert_close(stream, theirs, rtol=1e-9, atol=1e-9)


def test_what_the_variants_have_is_what_is_tested() -> None:
    def of(name: str) -> tuple[int, bool, bool, bool]:
        network: Any = outline(name)
        scaled = type(network.blocks[0].ls1) is not nn.Identity
        before = type(network.norm_pre) is not nn.Identity
        return network.num_prefix_tokens, network.no_embed_class, scaled, before

    assert of("vit_small_patch14_dinov2") == (1, False, True, False)
    assert of("vit_small_patch14_reg4_dinov2") == (5, True, True, False)
    assert of("deit_tiny_distilled_patch16_224") == (2, False, False, False)
    assert of("deit3_small_patch16_224") == (1, True, True, False)
    assert of("vit_xsmall_patch16_clip_224") == (1, False, False, True)
    assert of("test_vit2")[2]


@pytest.mark.parametrize("name", ["test_vit", "test_vit2"])
@pytest.mark.parametrize("stage", [1, 3])
def test_every_stream_and_every_gradient_is_that_of_timm_s_block_with_the_changed_weights(
    name: str, stage: int, tmp_path: Path
) -> None:
    keys = {"placement.task_layers": list(LINEARS)}
    of = moved(vit(name, "faar", tmp_path, **keys))
    theirs: Any = timm.create_model(name).eval()
    theirs.load_state_dict(load_file(tmp_path / f"{name}.safetensors"))
    index = round((stage + 1) * len(theirs.blocks) / 4) - 1
    block, timm_block = of.backbone.layers[stage].blocks[-1], theirs.blocks[index]
    assert isinstance(block, ViTTaskBlock)
    x = torch.randn(2, 7, timm_block.attn.qkv.in_features, requires_grad=True)
    shared, streams = block(x)
    assert (shared is None) is (stage == 3)

    def expected(adapters: dict[str, Any]) -> Tensor:
        weights = {n: p for n, p in block.block.named_parameters() if n.startswith(("norm1.", "norm2."))}
        for layer, adapter in adapters.items():
            W_OI = timm_block.get_parameter(f"{LINEARS[layer]}.weight").detach()
            V_OI = W_OI + adapter.scale * adapter.B_RO.t() @ adapter.A_RI
            norm_O = V_OI.detach().square().sum(1).sqrt()
            weights[f"{LINEARS[layer]}.weight"] = (adapter.m_O / norm_O)[:, None] * V_OI
        out: Tensor = functional_call(timm_block, weights, (x,))
        return out

    of_tasks = {layer: dict(linears.of_tasks()) for layer, linears in block.task_linears.items()}
    wanted = [expected({layer: of_tasks[layer][task] for layer in LINEARS}) for task in TASKS]
    ours = [*streams]
    if shared is not None:
        ours.insert(0, shared)
        wanted.insert(0, expected({layer: block.block.get_submodule(LINEARS[layer]).adapter for layer in LINEARS}))
    for y, of_timm in zip(ours, wanted, strict=True):
        torch.testing.assert_close(y, of_timm)

    weights = [torch.randn_like(y) for y in ours]
    trained = [x, *(p for p in block.parameters() if p.requires_grad)]
    gradients, of_wanted = (
        torch.autograd.grad(sum((y * w).sum() for y, w in zip(maps, weights, strict=True)), trained)
        for maps in (ours, wanted)
    )
    for gradient, of_timm in zip(gradients, of_wanted, strict=True):
        torch.testing.assert_close(gradient, of_timm, rtol=1e-9, atol=1e-9)


@pytest.mark.parametrize("method", ["faar", "lora_per_task", "sinewich_1x1", "faar_sinewich"])
@pytest.mark.parametrize("name", SMALL)
@torch.no_grad()
def test_shrunk_and_merged_they_predict_the_same_without_any_adapter(name: str, method: str, tmp_path: Path) -> None:
    of = shrunk(moved(vit(name, method, tmp_path)))
    merged = merge(of)
    assert not [m for m in merged.modules() if isinstance(m, LowRankFactors | AdaptedLinear | TaskLinears)]
    again = merged(image(name))
    for task, prediction in of(image(name)).items():
        torch.testing.assert_close(again[task], prediction)


@pytest.mark.parametrize("name", ["test_vit", "vit_tiny_patch16_224"])
def test_a_rank_pattern_names_the_linears_of_timm(name: str) -> None:
    of_trial = config(name, **{"backbone.pyramid": "merged"})
    sites = (adapter.site for adapter in adapter_list(model(name)))
    ranks = {site.place: 4 for site in sites}
    targets = rank_pattern(ranks, of_trial, "depth")["target_modules"]
    network = outline(name)
    assert len(targets) == 4 * len(network.blocks)
    assert all(isinstance(network.get_submodule(target), nn.Linear) for target in targets)


@pytest.mark.parametrize("method", ["faar", "sinewich_1x1", "full_ft"])
@pytest.mark.parametrize("name", ["test_vit", "test_vit2"])
def test_every_trained_parameter_gets_a_gradient(name: str, method: str, tmp_path: Path) -> None:
    of = moved(vit(name, method, tmp_path)).train()
    sum(p.square().mean() for p in of(image(name)).values()).backward()
    trained = {name: p for name, p in of.named_parameters() if p.requires_grad}
    assert [name for name, p in trained.items() if p.grad is None or not p.grad.any()] == []
