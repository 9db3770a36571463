"""The adapted Swin: identity at the start, who exists, whose stream is whose, and the accounting."""

from __future__ import annotations

from typing import Any

import pytest
import timm
import torch
from torch import Tensor

from faar_ray.adapters import Site
from faar_ray.config.trial import TrialConfig
from faar_ray.errors import ConfigError, DataError
from faar_ray.models import MultiTaskModel, adapter_list, build_model, parameters_by_part

TINY = "swin_tiny_patch4_window7_224"
PASCAL = {"name": "pascal_context", "tasks": ["semseg", "human_parts", "saliency", "normals"], "image_size": 224}


def micro(method: str = "faar", **dotted: Any) -> MultiTaskModel:
    raw = {"method": method, "backbone": {"pretrained": False}, "ranks": {"init_rank": 4}}
    return build_model(TrialConfig.resolve(raw, **dotted)).eval()


def image(side: int = 64) -> Tensor:
    return torch.randn(2, 3, side, side, generator=torch.Generator().manual_seed(0))


@pytest.mark.parametrize("task_layers", [["proj", "fc1", "fc2"], ["qkv", "proj", "fc1", "fc2"], ["fc2"]])
@torch.no_grad()
def test_at_the_start_every_task_sees_the_frozen_backbone(task_layers: list[str]) -> None:
    adapted, frozen = micro(**{"placement.task_layers": task_layers}), micro("decoder_only")
    for ours, theirs in zip(adapted.features(image()), frozen.features(image()), strict=True):
        assert ours.shape[0] == 3
        torch.testing.assert_close(ours, theirs.expand_as(ours), rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("side", [64, 56, 96])
@torch.no_grad()
def test_the_pyramid_is_timms_stages_after_their_merging(side: int) -> None:
    """Strides 8, 16, 32, 32; also at sizes that windows do not divide."""
    model = micro("decoder_only", **{"data.image_size": side})
    x, expected = model.backbone.patch_embed(image(side)), []
    stages = model.backbone.layers
    for s, stage in enumerate(stages):
        for block in stage.blocks:
            x = block(x)
        if s + 1 < len(stages):
            x = stages[s + 1].downsample(x)
        expected.append(x)
    for ours, theirs in zip(model.features(image(side)), expected, strict=True):
        torch.testing.assert_close(ours[0], theirs)


@torch.no_grad()
def test_an_adapted_task_block_equals_a_timm_block_with_the_adapted_weights_written_in() -> None:
    """Shifted windows, masks and relative positions included: merge one task's weights and run timm's own block."""
    torch.manual_seed(0)
    model = micro(**{"placement.task_layers": ["qkv", "proj", "fc1", "fc2"]})
    for adapter in adapter_list(model):
        adapter.B_RO.normal_(std=0.2)
    plain = micro("decoder_only").backbone
    task_block = model.backbone.layers[0].blocks[1]
    timm_block = plain.layers[0].blocks[1]
    assert any(timm_block.shift_size)
    x = torch.randn(2, 16, 16, 24)
    _, streams = task_block(x)
    for t, task in enumerate(("semseg", "human_parts", "normals")):
        for layer, parent in {"qkv": "attn", "proj": "attn", "fc1": "mlp", "fc2": "mlp"}.items():
            linears = task_block.task_linears[layer]
            merged = linears.adapters[task].adapt(linears.base.weight)
            getattr(getattr(timm_block, parent), layer).weight.copy_(merged)
        torch.testing.assert_close(streams[t], timm_block(x), rtol=1e-4, atol=1e-5)


def test_only_adapters_that_reach_an_output_exist_and_all_of_them_get_gradients() -> None:
    model = micro()
    sites = [adapter.site for adapter in adapter_list(model)]
    last = [site for site in sites if (site.stage, site.block) == (3, 1)]
    assert {(s.layer, s.task) for s in last if s.shared} == {("qkv", "shared")}
    assert len(sites) == len(set(sites)) == 7 * 4 + 1 + 4 * 3 * 3
    for adapter in adapter_list(model):
        torch.nn.init.normal_(adapter.B_RO)
    sum(p.square().mean() for p in model(image()).values()).backward()
    without = [a.site for a in adapter_list(model) for p in a.parameters() if p.grad is None or not p.grad.any()]
    assert without == []


def test_a_task_adapter_changes_its_own_task_only() -> None:
    model = micro()
    before = model(image())
    task_own = next(a for a in adapter_list(model) if a.site == Site(1, 1, "fc1", "human_parts"))
    torch.nn.init.normal_(task_own.B_RO)
    after = model(image())
    changed = {task for task in before if not torch.equal(before[task], after[task])}
    assert changed == {"human_parts"}


def test_inits_of_a_seed_do_not_depend_on_rank_or_method() -> None:
    heads = [micro(**{"ranks.init_rank": rank}).decoder.heads.state_dict() for rank in (2, 8)] + [
        micro("lora").decoder.heads.state_dict()
    ]
    for name in heads[0]:
        assert torch.equal(heads[0][name], heads[1][name])
        assert torch.equal(heads[0][name], heads[2][name])
    other = micro(seed=1).decoder.heads.state_dict()
    assert not torch.equal(heads[0]["semseg.hidden.weight"], other["semseg.hidden.weight"])


def test_the_rank_is_clipped_to_the_smaller_side_of_a_layer() -> None:
    ranks = {a.site.layer: a.rank for a in adapter_list(micro(**{"ranks.init_rank": 64})) if a.site.stage == 0}
    assert ranks == {"qkv": 24, "proj": 24, "fc1": 24, "fc2": 24}


@pytest.mark.parametrize(
    ("method", "light"), [("faar", True), ("dora", True), ("decoder_only", False), ("full_ft", True)]
)
def test_what_trains_is_what_the_method_says(method: str, light: bool) -> None:
    parts = parameters_by_part(micro(method))
    assert (parts["norms"] > 0) == light
    assert (parts["adapters"] > 0) == (method in ("faar", "dora"))
    assert (parts["other"] > 1_000_000) == (method == "full_ft")


def test_accounting_on_swin_tiny_and_pascal() -> None:
    """METHODS: trained besides adapters: norms 23,040, tables 23,322, patch embedding 4,896 (its norm 192 of it)."""
    raw = {"backbone": {"name": TINY, "pretrained": False}, "data": PASCAL, "ranks": {"init_rank": 5}}
    raw["decoder"] = {"kind": "hrnet"}
    parts = parameters_by_part(build_model(TrialConfig.resolve(raw)))
    assert parts["norms"] + parts["other"] == 23_040 + 23_322 + 4_896
    heads = 4 * (192 * 18 + 384 * 36 + 768 * 72 + 768 * 144 + 270 * 1080 + 1080 + 2 * 1080) + 1080 * 32 + 32
    assert parts["decoder"] == heads


def test_a_local_checkpoint_is_loaded_and_a_misfit_names_its_keys(tmp_path: Any) -> None:
    torch.manual_seed(0)
    weights = timm.create_model(TINY, num_classes=10).state_dict()
    torch.save({"model": weights}, tmp_path / "tiny.pth")
    raw = {"backbone": {"name": TINY, "checkpoint": str(tmp_path / "tiny.pth")}, "data": PASCAL}
    model = build_model(TrialConfig.resolve(raw, **{"ranks.init_rank": 2}))
    loaded = model.backbone.layers[2].blocks[0].attn.qkv.base.weight
    assert torch.equal(loaded, weights["layers.2.blocks.0.attn.qkv.weight"])

    weights["layers.0.blocks.0.attn.qkv.weight"] = torch.zeros(3, 3)
    del weights["layers.1.blocks.0.norm1.weight"]
    torch.save(weights, tmp_path / "broken.pth")
    raw["backbone"]["checkpoint"] = str(tmp_path / "broken.pth")
    with pytest.raises(DataError, match=r"missing: layers\.1\.blocks\.0\.norm1.*another shape: layers\.0\.blocks\.0"):
        build_model(TrialConfig.resolve(raw))


def test_a_pickle_offered_as_a_checkpoint_is_refused(tmp_path: Any) -> None:
    import pickle

    class Bomb:
        def __reduce__(self) -> tuple[Any, tuple[str]]:
            return (exec, ("raise SystemExit('the pickle ran')",))

    (tmp_path / "weights.pth").write_bytes(pickle.dumps(Bomb()))
    raw = {"backbone": {"name": TINY, "checkpoint": str(tmp_path / "weights.pth")}, "data": PASCAL}
    with pytest.raises(DataError, match="cannot be read as weights"):
        build_model(TrialConfig.resolve(raw))


def test_backbones_that_do_not_exist_or_are_no_swin_are_refused() -> None:
    for name in ("swin_tinny", "resnet50"):
        with pytest.raises(ConfigError, match="must be swin_micro, a timm Swin"):
            build_model(TrialConfig.resolve({"backbone": {"name": name, "pretrained": False}}))
