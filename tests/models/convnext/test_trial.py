"""A trial on a ConvNeXt: it learns, shrinks, resumes; what it trained leaves as files."""

from __future__ import annotations

from dataclasses import replace
from itertools import islice
from pathlib import Path
from typing import Any

import pytest
import torch

from faar_ray.config.trial import TrialConfig
from faar_ray.export.adapter_file import write_adapter
from faar_ray.export.merged_file import read_merged, write_merged
from faar_ray.export.read import load_model, read_adapter_file
from faar_ray.models import build_model
from faar_ray.records import MEASURED, EpochRecord
from faar_ray.storage.run_location import RunLocation, TrialPaths
from faar_ray.train.checkpoint import checkpoint_path
from faar_ray.train.fit import fit
from faar_ray.train.trial_spec import TrialSpec
from tests.models.networks import config, image, moved, shrunk, timm_weights

LINEAR, SECOND = "test_convnext", "convnextv2_atto"
TRIAL: dict[str, Any] = {
    "method": "faar",
    "data": {"train_images": 32, "val_images": 8, "test_images": 8, "image_size": 64},
    "backbone": {"name": LINEAR, "pretrained": False, "drop_path": 0.2},
    "ranks": {"init_rank": 6},
    "pdrs": {"rho_shared": 0.5, "beta": 0.8},
    "optim": {"epochs": 3, "batch_size": 8, "lr": 5e-3, "warmup_steps": 2, "accumulate": 2},
}


def run(folder: Path, epochs: int | None = None, **dotted: Any) -> list[EpochRecord]:
    spec = TrialSpec("t", TrialConfig.resolve(TRIAL, **dotted), RunLocation(folder))
    records = list(islice(fit(spec), epochs))
    return [replace(r, metrics={k: v for k, v in r.metrics.items() if not k.startswith(MEASURED)}) for r in records]


def trained(folder: Path) -> dict[str, torch.Tensor]:
    state = torch.load(checkpoint_path(TrialPaths(folder, "t").folder, 2), weights_only=True)
    return dict(state["model"])


def test_a_trial_learns_shrinks_and_resumes_bit_for_bit(tmp_path: Path) -> None:
    records = run(tmp_path / "whole")
    losses = [r.metrics["train/loss"] for r in records]
    assert losses[-1] < losses[0]
    ranks = [r.metrics["rank/mean"] for r in records]
    assert ranks == sorted(ranks, reverse=True)
    assert ranks[-1] < ranks[0]
    rows = records[-1].ranks
    assert {row.layer for row in rows} == {"fc1", "fc2"}
    assert {(row.stage, row.block) for row in rows if row.task == "normals"} == {(0, 0), (1, 1), (2, 3), (3, 1)}

    run(tmp_path / "cut", epochs=1)
    torch.rand(5)
    assert run(tmp_path / "cut") == records
    ours, theirs = trained(tmp_path / "cut"), trained(tmp_path / "whole")
    assert ours.keys() == theirs.keys()
    assert [name for name in ours if not torch.equal(ours[name], theirs[name])] == []


@pytest.mark.parametrize("method", ["faar_sinewich", "lora_per_task", "full_ft"])
def test_other_methods_train_on_it_too(method: str, tmp_path: Path) -> None:
    keys = {"optim.epochs": 1, "method": method, "data.tasks": ["semseg", "normals"]}
    assert run(tmp_path, **keys)[-1].metrics["train/loss"] > 0


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
