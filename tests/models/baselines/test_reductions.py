"""`placement.reductions`: what merges tokens between stages, frozen, trained or adapted."""

from __future__ import annotations

from importlib.util import find_spec
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from faar_ray.adapters import AdaptedLinear
from faar_ray.config.trial import TrialConfig
from faar_ray.errors import ConfigError
from faar_ray.export.rank_pattern import rank_pattern
from faar_ray.models import MultiTaskModel, adapter_list, build_model, merge, parameters_by_part
from faar_ray.models.multitask import parameter_terms
from faar_ray.tracking.plots.layer_map import name_of, sites_of
from tests.models.trials import run

CONVNEXT = "test_convnext"
SITES = [(0, 2), (1, 2), (2, 2)]


def config(**dotted: Any) -> TrialConfig:
    raw = {
        "method": "lora",
        "data": {"tasks": ["semseg", "normals"], "image_size": 64},
        "backbone": {"pretrained": False},
    }
    return TrialConfig.resolve(raw, **{"ranks.init_rank": 4, "placement.reductions": "adapted", **dotted})


def moved(**dotted: Any) -> MultiTaskModel:
    """Everything that trains away from its start, ranks of 1 to 3."""
    model = build_model(config(**dotted)).double().eval()
    generator = torch.Generator().manual_seed(1)
    with torch.no_grad():
        for parameter in model.parameters():
            if parameter.requires_grad:
                parameter.add_(0.1 * torch.randn(parameter.shape, generator=generator, dtype=torch.float64))
    for i, adapter in enumerate(adapter_list(model)):
        adapter.keep(torch.tensor([2, 0, 1][: 1 + i % 3]))
    return model


def image() -> Tensor:
    return torch.randn(2, 3, 64, 64, dtype=torch.float64, generator=torch.Generator().manual_seed(0))


def reductions(model: MultiTaskModel) -> list[nn.Module]:
    return [stage.downsample.reduction for stage in model.backbone.layers[1:]]


@pytest.mark.parametrize(
    "dotted",
    [
        {},
        {"adapter.kind": "dora", "ranks.kind": "pdrs"},
        {"method": "free_sinewich"},
        {"method": "lora_per_task"},
        {"backbone.pyramid": "stages"},
        {"backbone.name": CONVNEXT},
        {"backbone.name": CONVNEXT, "adapter.kind": "dora", "backbone.pyramid": "stages"},
    ],
)
@torch.no_grad()
def test_adapted_reductions_begin_as_frozen_ones_and_merge_into_plain_linears(dotted: dict[str, Any]) -> None:
    start, frozen = (build_model(config(**dotted, **over)).eval() for over in ({}, {"placement.reductions": "frozen"}))
    for task, prediction in frozen(image().float()).items():
        torch.testing.assert_close(start(image().float())[task], prediction, rtol=1e-4, atol=1e-4)

    model = moved(**dotted)
    assert all(isinstance(reduction, AdaptedLinear) for reduction in reductions(model))
    sites = [adapter.site for adapter in adapter_list(model) if adapter.site.layer == "reduction"]
    assert [site.stage for site in sites] == [0, 1, 2]
    assert all(site.shared for site in sites)
    merged = merge(model)
    assert not [m for m in merged.modules() if isinstance(m, AdaptedLinear)]
    for task, prediction in merged(image()).items():
        torch.testing.assert_close(prediction, model(image())[task])


@pytest.mark.parametrize("name", ["swin_micro", CONVNEXT])
def test_all_streams_pass_a_reduction_and_all_of_them_move_its_adapter(name: str) -> None:
    model = moved(**{"backbone.name": name})
    (first, *_) = (adapter for adapter in adapter_list(model) if adapter.site.layer == "reduction")
    before = model(image())
    for task in before:
        model.zero_grad()
        model(image())[task].square().mean().backward()
        assert first.A_RI.grad is not None
        assert first.A_RI.grad.any()
    with torch.no_grad():
        first.B_RO.mul_(2)
    after = model(image())
    assert all((after[task] - before[task]).abs().max() > 1e-3 for task in before)


@pytest.mark.parametrize("name", ["swin_micro", CONVNEXT])
def test_trained_reductions_train_with_what_they_hold_and_have_no_adapter(name: str) -> None:
    frozen, trained = (
        build_model(config(**{"backbone.name": name, "placement.reductions": key})) for key in ("frozen", "trained")
    )
    held = sum(p.numel() for reduction in reductions(trained) for p in reduction.parameters())
    assert parameter_terms(trained)["merging reductions"] == held
    assert parameters_by_part(trained)["other"] - parameters_by_part(frozen)["other"] == held
    assert len(adapter_list(trained)) == len(adapter_list(frozen))
    trained(image().float())["normals"].square().mean().backward()
    assert all(p.grad is not None and p.grad.any() for r in reductions(trained) for p in r.parameters())


@pytest.mark.parametrize(
    ("name", "why"),
    [
        ("vit_tiny_patch16_224", "whose blocks all have one resolution"),
        ("test_efficientnet", "whose maps are halved by depthwise or k x k convolutions inside blocks"),
    ],
)
@pytest.mark.parametrize("key", ["trained", "adapted"])
def test_a_backbone_without_reductions_refuses_with_the_reason(name: str, why: str, key: str) -> None:
    dotted = {"backbone.name": name, "backbone.pyramid": "stages", "placement.reductions": key}
    with pytest.raises(ConfigError, match=rf"placement\.reductions: must be frozen on {name}, {why}, got '{key}'"):
        build_model(config(**dotted))


def test_a_method_without_adapters_does_not_read_the_placement() -> None:
    plain = build_model(config(method="decoder_only"))
    assert adapter_list(plain) == []
    assert "merging reductions" not in parameter_terms(plain)


def test_ranks_of_reductions_shrink_and_are_traced_like_others(tmp_path: Path) -> None:
    dotted = {"method": "pdrs_lora", "placement.reductions": "adapted", "optim.epochs": 2}
    records = run(tmp_path, dotted)
    rows = [row for row in records[-1].ranks if row.layer == "reduction"]
    assert [(row.stage, row.block) for row in rows] == SITES
    assert {row.task for row in rows} == {"shared"}
    assert any(row.rank < row.rank_before for row in rows)
    assert all(max(row.importance) > 0 for row in rows)
    sites = sites_of([{"stage": r.stage, "block": r.block, "layer": r.layer} for r in records[-1].ranks])
    names = [name_of(site) for site in sites]
    assert names.index("s0.b1 fc2") < names.index("s0 reduction") < names.index("s1.b0 qkv")


@pytest.mark.skipif(find_spec("peft") is None, reason="peft is optional")
@pytest.mark.parametrize(("name", "kind"), [("swin_micro", "lora"), (CONVNEXT, "lora"), (CONVNEXT, "dora")])
def test_a_rank_pattern_names_reductions_where_timm_has_them(name: str, kind: str) -> None:
    import timm
    from peft import LoraConfig, inject_adapter_in_model

    from faar_ray.models import micro

    of = config(**{"backbone.name": name, "adapter.kind": kind})
    adapters = adapter_list(build_model(of))
    pattern = rank_pattern({adapter.site.place: adapter.rank for adapter in adapters}, of)
    network = micro.architecture(64) if name == micro.NAME else timm.create_model(name)
    named = dict(inject_adapter_in_model(LoraConfig(**pattern), network).named_modules())
    paths = [path for path in pattern["target_modules"] if "downsample" in path]
    shared = [adapter for adapter in adapters if adapter.site.layer == "reduction"]
    assert len(paths) == len(shared) == 3
    for path, adapter in zip(paths, shared, strict=True):
        for factor, ours in zip("AB", adapter.factors, strict=True):
            assert getattr(named[path], f"lora_{factor}")["default"].weight.numel() == ours.numel()
