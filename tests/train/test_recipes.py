"""A trial under a paper's recipe: its rates and drop-outs in the real loop, and checkpoints of before its keys."""

from __future__ import annotations

from dataclasses import replace
from itertools import islice
from pathlib import Path
from typing import Any

import pytest
import torch

from faar_ray.config.trial import ADDED, TrialConfig
from faar_ray.errors import ConfigError
from faar_ray.records import MEASURED, EpochRecord
from faar_ray.storage.run_location import RunLocation, TrialPaths
from faar_ray.train.checkpoint import checkpoint_path, read_checkpoint, save_checkpoint
from faar_ray.train.fit import fit
from faar_ray.train.trial_spec import TrialSpec

SMALL: dict[str, Any] = {
    "data": {"tasks": ["semseg", "normals"], "image_size": 32, "train_images": 24, "val_images": 8, "test_images": 8},
    "backbone": {"pretrained": False},
    "ranks": {"init_rank": 4},
    "pdrs": {"rho_shared": 0.7},
    "optim": {"epochs": 3, "batch_size": 8, "warmup_epochs": 1, "precision": "fp32"},
}


def run(folder: Path, epochs: int | None = None, **dotted: Any) -> list[EpochRecord]:
    config = TrialConfig.resolve(SMALL, **{key.replace("__", "."): value for key, value in dotted.items()})
    records = list(islice(fit(TrialSpec("t", config, RunLocation(folder))), epochs))
    kept = (({k: v for k, v in r.metrics.items() if not k.startswith(MEASURED)}, r) for r in records)
    return [replace(record, metrics=metrics) for metrics, record in kept]


def state_of(folder: Path, epoch: int = 2) -> dict[str, Any]:
    return read_checkpoint(checkpoint_path(TrialPaths(folder, "t").folder, epoch))


def assert_same(ours: dict[str, Any], theirs: dict[str, Any]) -> None:
    assert [name for name in ours["model"] if not torch.equal(ours["model"][name], theirs["model"][name])] == []
    pairs = zip(ours["optimizer"]["state"].values(), theirs["optimizer"]["state"].values(), strict=True)
    assert all(torch.equal(a[key], b[key]) for a, b in pairs for key in a)


@pytest.mark.parametrize("kind", ["lora", "dora"])
def test_a_trial_with_drop_out_resumes_bit_for_bit(kind: str, tmp_path: Path) -> None:
    keys = {"recipe": "mtlora", "adapter__kind": kind, "adapter__dropout": 0.2, "optim__lr_batch": None}
    whole = run(tmp_path / "whole", **keys)
    run(tmp_path / "cut", 1, **keys)
    torch.rand(17)  # another process has another global state
    assert run(tmp_path / "cut", **keys) == whole
    assert_same(state_of(tmp_path / "cut"), state_of(tmp_path / "whole"))
    without = run(tmp_path / "without", **keys | {"adapter__dropout": 0.0})
    assert without[-1].metrics["train/loss"] != whole[-1].metrics["train/loss"]


def test_a_trial_trains_at_the_recipes_rates(tmp_path: Path) -> None:
    run(tmp_path, recipe="mtlora")
    groups = state_of(tmp_path)["optimizer"]["param_groups"]
    assert {group["initial_lr"] for group in groups} == {5e-4 * 8 / 512}
    assert [group["lr"] for group in groups] == pytest.approx([5e-6 * 8 / 512] * len(groups))
    assert state_of(tmp_path)["steps"] == 9
    assert sum(len(group["params"]) for group in groups if group["weight_decay"] == 0.05) > 0


def test_a_trial_of_before_the_new_keys_goes_on_and_another_recipe_is_refused_by_its_keys(tmp_path: Path) -> None:
    plain = {"optim__warmup_epochs": None, "optim__warmup_steps": 3}
    whole = run(tmp_path / "whole", **plain)
    run(tmp_path / "older", 2, **plain)
    state, folder = state_of(tmp_path / "older", 1), TrialPaths(tmp_path / "older", "t").folder
    for key in ADDED:
        *sections, name = key.split(".")
        del (state["config"][sections[0]] if sections else state["config"])[name]
    save_checkpoint(folder, 1, state, keep=1)

    with pytest.raises(ConfigError, match="was trained with another config") as caught:
        run(tmp_path / "older", **plain, recipe="faar")
    for difference in ("recipe: none there, faar here", "optim.min_lr: 0.0 there, 0.0032 here"):
        assert difference in str(caught.value)
    assert run(tmp_path / "older", **plain) == whole
    assert_same(state_of(tmp_path / "older"), state_of(tmp_path / "whole"))
