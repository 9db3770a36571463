"""A trial on a ConvNeXt: it learns, shrinks, resumes; what it trained leaves as files."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch

from faar_ray.export.adapter_file import write_adapter
from faar_ray.export.merged_file import read_merged, write_merged
from faar_ray.export.read import load_model, read_adapter_file
from faar_ray.models import build_model
from tests.models.networks import config, image, moved, shrunk, timm_weights
from tests.models.trials import check_that_it_learns_shrinks_and_resumes, run

LINEAR, SECOND = "test_convnext", "convnextv2_atto"
TRIAL: dict[str, Any] = {"backbone.name": LINEAR}


def test_a_trial_learns_shrinks_and_resumes_bit_for_bit(tmp_path: Path) -> None:
    check_that_it_learns_shrinks_and_resumes(tmp_path, TRIAL, {(0, 0), (1, 1), (2, 3), (3, 1)})


@pytest.mark.parametrize("method", ["faar_sinewich", "lora_per_task", "full_ft"])
def test_other_methods_train_on_it_too(method: str, tmp_path: Path) -> None:
    keys = {"optim.epochs": 1, "method": method, "data.tasks": ["semseg", "normals"]}
    assert run(tmp_path, TRIAL | keys)[-1].metrics["train/loss"] > 0


@torch.no_grad()
def test_files_of_a_trained_model_give_its_predictions_back(tmp_path: Path) -> None:
    keys = {"backbone.checkpoint": str(timm_weights(SECOND, tmp_path)), "backbone.pyramid": "merged"}
    of_trial = config(SECOND, **keys, **{"decoder.xt_cons": False})
    of = shrunk(moved(build_model(of_trial).eval()))
    write_adapter(tmp_path / "adapter.safetensors", of, of_trial)
    write_merged(tmp_path / "merged.safetensors", of, of_trial, "depth")
    again = load_model(read_adapter_file(tmp_path / "adapter.safetensors"), tmp_path / "adapter.safetensors")
    for task, prediction in of(image()).items():
        torch.testing.assert_close(again(image())[task], prediction)
    alone = read_merged(tmp_path / "merged.safetensors")(image())
    assert list(alone) == ["depth"]
    torch.testing.assert_close(alone["depth"], of(image())["depth"], rtol=1e-4, atol=1e-4)
