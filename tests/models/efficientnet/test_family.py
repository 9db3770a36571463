"""Which convolutional backbones are taken, which are refused and why, and a trial on one of them."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import timm
import torch

from faar_ray.errors import ConfigError
from faar_ray.export.rank_pattern import rank_pattern
from faar_ray.models import adapter_list
from faar_ray.models.backbone import family_of
from faar_ray.models.efficientnet.family import EFFICIENTNET
from faar_ray.train.preflight import preflight
from tests.models.networks import B0, EDGE, LITE, SMALL, config, model
from tests.models.trials import check_that_it_learns_shrinks_and_resumes, run


@pytest.mark.parametrize("name", [LITE, B0, EDGE, SMALL, "mobilenetv2_100", "mnasnet_100", "lcnet_050", "fbnetc_100"])
def test_timm_s_mobile_networks_are_one_family(name: str) -> None:
    assert family_of(name) is EFFICIENTNET
    preflight(config(name), data=False)


@pytest.mark.parametrize(
    ("name", "dotted", "message"),
    [
        (LITE, {"backbone.pyramid": "merged"}, r"backbone\.pyramid: must be stages \(strides 4, 8, 16, 32\) on tf_eff"),
        (
            EDGE,
            {"placement.task_layers": ["fc1"]},
            r"placement\.task_layers: must hold fc2, the layers of stage 0 of test_efficientnet, got fc1",
        ),
        (
            EDGE,
            {"method": "sinewich_1x1", "sinewich.layers": ["fc1"]},
            r"sinewich\.layers: must hold fc2, the layers of stage 0 of test_efficientnet, got fc1",
        ),
        (
            LITE,
            {"placement.layers": ["qkv", "proj"]},
            r"placement\.layers: must hold fc1 or fc2, the layers of tf_efficientnet_lite0, got qkv, proj",
        ),
        (
            "mobilenetv4_hybrid_medium",
            {},
            r"backbone\.name: mobilenetv4_hybrid_medium cannot be adapted: its blocks must .* not MobileAttention",
        ),
        ("tf_efficientnet_cc_b0_4e", {}, r"cannot be adapted: its blocks must be .* not CondConvResidual"),
        ("mobilenet_v3_large", {}, r"did you mean 'mobilenetv3_large_100'"),
        ("tf_efficientnet_lite_0", {}, r"did you mean 'tf_efficientnet_lite0'"),
        ("resnet18", {}, r"a timm EfficientNet or MobileNet"),
    ],
)
def test_what_they_cannot_take_is_refused_before_anything_starts(
    name: str, dotted: dict[str, Any], message: str
) -> None:
    with pytest.raises(ConfigError, match=message):
        preflight(config(name, **dotted), data=False)


def test_a_pyramid_that_a_family_lacks_is_refused_without_adapters_too() -> None:
    with pytest.raises(ConfigError, match=r"backbone\.pyramid: must be stages"):
        model(LITE, "decoder_only", **{"backbone.pyramid": "merged"})


def test_heads_are_as_wide_as_those_of_a_swin_whose_widths_are_like_these() -> None:
    assert [r.out_channels for r in model(LITE).decoder.head("depth").reductions] == [5, 10, 20, 40]
    assert [r.in_channels for r in model(LITE).decoder.head("depth").reductions] == [24, 40, 112, 320]
    assert EFFICIENTNET.embed_dim([96, 192, 384, 768]) == 96


def test_a_rank_pattern_names_timm_s_own_convolutions_of_the_adapters_shapes() -> None:
    of_trial = config(SMALL)
    of = model(SMALL)
    ranks = {adapter.site.place: adapter.rank for adapter in adapter_list(of)}
    pattern = rank_pattern(ranks, of_trial, "depth")["rank_pattern"]
    network = timm.create_model(SMALL)
    for adapter in adapter_list(of):
        site = adapter.site
        assert EFFICIENTNET.peft_module is not None
        path = EFFICIENTNET.peft_module(SMALL, site.stage, site.block, site.layer)
        convolution = network.get_submodule(path)
        assert isinstance(convolution, torch.nn.Conv2d)
        sides = (convolution.out_channels, convolution.in_channels)
        assert sides == (adapter.B_RO.shape[1], adapter.A_RI.shape[1])
        if site.task in ("shared", "depth"):
            assert pattern[path] == adapter.rank
    assert "blocks.5.0.conv" in pattern  # the last one, of depth


TRIAL: dict[str, Any] = {"backbone.name": LITE, "backbone.pyramid": "stages"}


def test_a_trial_learns_shrinks_and_resumes_bit_for_bit(tmp_path: Path) -> None:
    check_that_it_learns_shrinks_and_resumes(tmp_path, TRIAL, {(0, 2), (1, 1), (2, 5), (3, 4)})


@pytest.mark.parametrize("method", ["sinewich_1x1", "faar_sinewich", "lora_per_task", "full_ft", "decoder_only"])
def test_other_methods_train_on_it_too(method: str, tmp_path: Path) -> None:
    keys = {"backbone.name": EDGE, "optim.epochs": 1, "method": method}
    if method == "lora_per_task":
        keys["data.tasks"] = ["semseg", "normals"]
    assert run(tmp_path, TRIAL | keys)[-1].metrics["train/loss"] > 0
