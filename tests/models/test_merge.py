"""Folding adapters in: the same outputs, and nothing of adapters left."""

from __future__ import annotations

from typing import Any

import pytest
import torch

from faar_ray.adapters import AdaptedLinear, LowRankFactors, TaskLinears
from faar_ray.config.trial import TrialConfig
from faar_ray.errors import ConfigError
from faar_ray.models import MultiTaskModel, adapter_list, build_model, merge

TASKS = ("semseg", "human_parts", "normals")
WITHOUT_CONSENSUS = {"decoder.xt_cons": False}


def trained(method: str = "faar", **dotted: Any) -> MultiTaskModel:
    """A small model whose adapters, filters and norms have moved, some of them shrunk."""
    raw = {"method": method, "backbone": {"pretrained": False}, "ranks": {"init_rank": 4}, "data": {"tasks": TASKS}}
    model = build_model(TrialConfig.resolve(raw, **dotted)).eval()
    torch.manual_seed(0)
    with torch.no_grad():
        for parameter in model.parameters():
            if parameter.requires_grad:
                parameter.add_(0.05 * torch.randn_like(parameter))
    for i, adapter in enumerate(adapter_list(model)):
        adapter.keep(torch.tensor([2, 0, 1][: 1 + i % 3]))
    return model


@pytest.mark.parametrize(
    ("method", "dotted"),
    [
        ("faar", {}),
        ("faar", {"placement.task_layers": ["qkv", "proj", "fc1", "fc2"]}),
        ("faar", {"placement.task_layers": ["fc1"]}),
        ("lora", {}),
        ("dora", {"placement.task_layers": []}),
        ("lora_per_task", {}),
    ],
)
@torch.no_grad()
def test_a_merged_model_predicts_the_same_without_any_adapter(method: str, dotted: dict[str, Any]) -> None:
    model = trained(method, **dotted)
    merged = merge(model)
    assert not [m for m in merged.modules() if isinstance(m, LowRankFactors | AdaptedLinear | TaskLinears)]
    assert adapter_list(model)
    image = torch.randn(2, 3, 64, 64)
    ours, theirs = merged(image), model(image)
    assert list(ours) == list(theirs)
    for task in TASKS:
        assert (ours[task] - theirs[task]).abs().max() <= 1e-5 * theirs[task].abs().max().clamp_min(1)


@torch.no_grad()
def test_one_task_alone_predicts_the_same_with_its_own_weights_only() -> None:
    model = trained(**WITHOUT_CONSENSUS)
    image = torch.randn(2, 3, 64, 64)
    for task in TASKS:
        alone = merge(model, task)
        predicted = alone(image)
        assert list(predicted) == [task]
        torch.testing.assert_close(predicted[task], model(image)[task], rtol=1e-5, atol=1e-5)
        others = [name for name, _ in alone.named_parameters() if any(t in name for t in TASKS if t != task)]
        assert others == []


@torch.no_grad()
def test_a_task_that_looks_at_the_others_keeps_them() -> None:
    model = trained()
    image = torch.randn(2, 3, 64, 64)
    torch.testing.assert_close(merge(model, "semseg")(image)["semseg"], model(image)["semseg"], rtol=1e-5, atol=1e-5)


def test_the_model_itself_stays_as_it_was() -> None:
    model = trained()
    before = {name: value.clone() for name, value in model.state_dict().items()}
    merge(model, "semseg")
    after = model.state_dict()
    assert list(before) == list(after)
    assert all(torch.equal(before[name], after[name]) for name in before)


def test_a_common_task_path_and_a_stranger_are_refused_with_the_reason() -> None:
    with pytest.raises(ConfigError, match=r"task_path: shared cannot be merged: the frozen weight sees the shared"):
        merge(trained(**{"placement.task_path": "shared"}))
    with pytest.raises(ConfigError, match="must be one of semseg, human_parts, normals, got 'depth'"):
        merge(trained(), "depth")
