"""Adapters in every block, ranks per stage, and what a method holds on swin_tiny."""

from __future__ import annotations

import json
import logging
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor

from faar_ray.config.trial import PRESETS, TrialConfig
from faar_ray.models import MultiTaskModel, adapter_list, build_model, parameters_by_part
from faar_ray.train.__main__ import main

TASKS = ["semseg", "human_parts", "saliency", "normals"]
PUBLISHED = 3_380_000
TOKENS_IN_ATTENTION = {
    "free_sinewich",
    "sinewich_independent",
    "sinewich_linear",
    "sinewich_without_lcn",
    "sinewich_without_low_pass",
}
OTHER_STARTS = {"ditask_release", "faar_release", "tadformer", "tadformer_release", *TOKENS_IN_ATTENTION}
"""Methods that do not begin at the frozen backbone."""


def micro(method: str, **dotted: Any) -> MultiTaskModel:
    raw = {"method": method, "backbone": {"pretrained": False}, "ranks": {"init_rank": 4}}
    return build_model(TrialConfig.resolve(raw, **dotted)).eval()


def image() -> Tensor:
    return torch.randn(2, 3, 64, 64, generator=torch.Generator().manual_seed(0))


@pytest.mark.parametrize("method", sorted(set(PRESETS) - {"single_task", *OTHER_STARTS}))
@torch.no_grad()
def test_every_method_starts_with_the_predictions_of_the_frozen_backbone(method: str) -> None:
    config = TrialConfig.resolve({"method": method})
    head = {"sinewich": config.sinewich.model_dump(), "decoder.hidden": config.decoder.hidden}
    ours, frozen = micro(method)(image()), micro("decoder_only", **head)(image())
    for task, prediction in frozen.items():
        torch.testing.assert_close(ours[task], prediction, rtol=1e-3, atol=1e-4)


@torch.no_grad()
def test_switching_to_the_spectral_decoder_changes_no_output_at_all() -> None:
    hrnet, ts_pd = (micro("faar", **{"decoder.kind": kind})(image()) for kind in ("hrnet", "ts_pd"))
    for task, prediction in hrnet.items():
        assert torch.equal(prediction, ts_pd[task])


def test_an_ensemble_of_task_loras_shares_no_adapter_and_no_stream() -> None:
    model = micro("lora_per_task")
    adapters = adapter_list(model)
    assert len(adapters) == 8 * 4 * 3
    assert not any(adapter.site.shared for adapter in adapters)
    for adapter in adapters:
        torch.nn.init.normal_(adapter.B_RO, std=0.1)
    model(image())["normals"].sum().backward()
    moved = {adapter.site.task for adapter in adapters if adapter.A_RI.grad is not None and adapter.A_RI.grad.any()}
    assert moved == {"normals"}


def test_an_ensemble_equals_its_members_run_one_by_one() -> None:
    model = micro("lora_per_task")
    adapters = adapter_list(model)
    for adapter in adapters:
        torch.nn.init.normal_(adapter.B_RO, std=0.1)
    together = model(image())
    for task in ("semseg", "normals"):
        alone = micro("lora_per_task", **{"data.tasks": [task]})
        members = {a.site: a for a in adapters}
        with torch.no_grad():
            for adapter in adapter_list(alone):
                adapter.A_RI.copy_(members[adapter.site].A_RI)
                adapter.B_RO.copy_(members[adapter.site].B_RO)
        torch.testing.assert_close(alone(image())[task], together[task], rtol=1e-4, atol=1e-5)


def test_a_layer_that_is_not_task_specific_stays_shared_in_an_ensemble() -> None:
    model = micro("lora_per_task", **{"placement.task_layers": ["fc2"]})
    assert {a.site.layer for a in adapter_list(model) if not a.site.shared} == {"fc2"}
    assert {a.site.layer for a in adapter_list(model) if a.site.shared} == {"qkv", "proj", "fc1"}
    assert model(image())["semseg"].shape[-2:] == (64, 64)


def test_ranks_may_start_differently_in_each_stage(caplog: pytest.LogCaptureFixture) -> None:
    with caplog.at_level(logging.WARNING):
        model = micro("lora", **{"ranks.init_rank": {"0": 2, "1": 3, "2": 5, "3": 16}})
    assert {(a.site.stage, a.rank) for a in adapter_list(model)} == {(0, 2), (1, 3), (2, 5), (3, 16)}
    assert not caplog.records


def test_a_rank_above_a_layers_smaller_side_is_clipped_and_said(caplog: pytest.LogCaptureFixture) -> None:
    with caplog.at_level(logging.WARNING):
        micro("lora", **{"ranks.init_rank": 30})
    (message,) = [record.getMessage() for record in caplog.records]
    assert message.startswith("ranks.init_rank: above the smaller side of its layer for 17 adapters")
    assert "24 in stage 0" in message


@pytest.mark.parametrize(("ranks", "stages"), [("5", (5, 5, 5, 5)), ("{0: 2, 1: 2, 2: 3, 3: 16}", (2, 2, 3, 16))])
def test_what_faar_holds_on_swin_tiny_is_its_sum_term_by_term(
    ranks: str, stages: tuple[int, ...], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """PASCAL's four tasks at 448x448; METHODS, section 4, and the published 3.38M beside which it stands."""
    (tmp_path / "faar.yaml").write_text(
        f"method: faar\ndata: {{name: pascal_context, tasks: [{', '.join(TASKS)}], image_size: 448}}\n"
        "backbone: {name: swin_tiny_patch4_window7_224}\nranks: {kind: fixed}\n"
    )
    assert main([str(tmp_path / "faar.yaml"), f"ranks.init_rank={ranks}", "--dry-run", "--json"]) == 0
    result = json.loads(capsys.readouterr().out)
    factors = magnitudes = 0
    for stage, (dim, depth, rank) in enumerate(zip((96, 192, 384, 768), (2, 2, 6, 2), stages, strict=True)):
        sides = {"qkv": (dim, 3 * dim), "proj": (dim, dim), "fc1": (dim, 4 * dim), "fc2": (4 * dim, dim)}
        for layer, (inputs, outputs) in sides.items():
            shared = depth - (stage == 3 and layer != "qkv")  # none where no shared stream goes on
            count = shared + (0 if layer == "qkv" else len(TASKS))
            factors += count * rank * (inputs + outputs)
            magnitudes += count * outputs
    heads = 4 * (192 * 18 + 384 * 36 + 768 * 72 + 768 * 144 + 270 * 1080 + 1080 + 2 * 1080) + 1080 * 32 + 32
    grids = 4 * (56 * 29 + 28 * 15 + 2 * 14 * 8 + 2 * 270)
    alphas = 4 * 4 * 2
    parts = result["by_part"]
    assert parts["adapters"] == factors
    assert parts["magnitudes"] == magnitudes
    assert parts["decoder"] == heads + grids + alphas
    assert parts["norms"] + parts["other"] == 23_040 + 23_322 + 4_896
    assert result["trainable_params"] == sum(parts.values())
    assert 0.8 * PUBLISHED < result["trainable_params"] < PUBLISHED


def test_parts_of_a_model_sum_to_what_trains() -> None:
    for method in ("faar", "faar_release", "lora_per_task", "cw_sp"):
        model = micro(method)
        assert sum(parameters_by_part(model).values()) == sum(p.numel() for p in model.parameters() if p.requires_grad)
