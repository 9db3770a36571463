"""Drop-outs of a recipe on every backbone family."""

from __future__ import annotations

from typing import Any

import pytest
import torch

from faar_ray.config.trial import TrialConfig
from faar_ray.models import MultiTaskModel, adapter_list, build_model

FAMILIES = {"swin_micro": 32, "vit_tiny_patch16_224": 32, "convnext_atto": 32, "efficientnet_lite0": 32}


def model_of(name: str, **dotted: Any) -> MultiTaskModel:
    raw = {
        "recipe": "mtlora",
        "method": "dora",
        "data": {"tasks": ["depth", "normals"], "image_size": FAMILIES[name]},
        "backbone": {"name": name, "pretrained": False, "pyramid": "stages"},
        "ranks": {"init_rank": 2},
    }
    torch.manual_seed(1)
    model = build_model(TrialConfig.resolve(raw, **dotted))
    for adapter in adapter_list(model):
        torch.nn.init.normal_(adapter.B_RO, std=0.1)
    return model


@pytest.mark.parametrize("name", FAMILIES)
def test_adapters_of_every_family_drop_in_training_alone(name: str) -> None:
    image = torch.rand(2, 3, FAMILIES[name], FAMILIES[name])
    dropped, whole = (
        model_of(name, **{"backbone.drop_path": 0.0, "adapter.dropout": rate}).train() for rate in (0.5, 0.0)
    )
    with torch.no_grad():
        assert not torch.equal(dropped(image)["depth"], dropped(image)["depth"])
        assert torch.equal(whole(image)["depth"], whole(image)["depth"])
        for model in (dropped, whole):
            model.load_state_dict(whole.state_dict())
        assert torch.equal(dropped.eval()(image)["depth"], whole.eval()(image)["depth"])


def test_drop_path_rises_linearly_over_the_blocks() -> None:
    blocks = [block for stage in model_of("swin_micro").backbone.layers for block in stage.blocks]
    plain = [getattr(block, "block", block) for block in blocks]
    rates = [float(getattr(block.drop_path1, "drop_prob", 0.0)) for block in plain]
    assert rates == pytest.approx(torch.linspace(0, 0.2, len(rates)).tolist())
