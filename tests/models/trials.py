"""A short trial on a convolutional backbone, and what must hold of it on each."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from itertools import islice
from pathlib import Path
from typing import Any

import torch

from faar_ray.config.trial import TrialConfig
from faar_ray.records import MEASURED, EpochRecord
from faar_ray.storage.run_location import RunLocation, TrialPaths
from faar_ray.train.checkpoint import checkpoint_path
from faar_ray.train.fit import fit
from faar_ray.train.trial_spec import TrialSpec

TRIAL: dict[str, Any] = {
    "method": "faar",
    "data": {"train_images": 32, "val_images": 8, "test_images": 8, "image_size": 64},
    "backbone": {"pretrained": False, "drop_path": 0.2},
    "ranks": {"init_rank": 6},
    "pdrs": {"rho_shared": 0.5, "beta": 0.8},
    "optim": {"epochs": 3, "batch_size": 8, "lr": 5e-3, "warmup_steps": 2, "accumulate": 2},
}


def run(folder: Path, dotted: Mapping[str, Any], epochs: int | None = None) -> list[EpochRecord]:
    spec = TrialSpec("t", TrialConfig.resolve(TRIAL, **dotted), RunLocation(folder))
    records = list(islice(fit(spec), epochs))
    return [replace(r, metrics={k: v for k, v in r.metrics.items() if not k.startswith(MEASURED)}) for r in records]


def trained(folder: Path) -> dict[str, torch.Tensor]:
    state = torch.load(checkpoint_path(TrialPaths(folder, "t").folder, 2), weights_only=True)
    return dict(state["model"])


def check_that_it_learns_shrinks_and_resumes(
    folder: Path, dotted: Mapping[str, Any], task_blocks: set[tuple[int, int]]
) -> None:
    """`task_blocks`: stage and block of the task-specific ones."""
    records = run(folder / "whole", dotted)
    losses = [r.metrics["train/loss"] for r in records]
    assert losses[-1] < losses[0]
    ranks = [r.metrics["rank/mean"] for r in records]
    assert ranks == sorted(ranks, reverse=True)
    assert ranks[-1] < ranks[0]
    rows = records[-1].ranks
    assert {row.layer for row in rows} == {"fc1", "fc2"}
    assert {(row.stage, row.block) for row in rows if row.task == "normals"} == task_blocks

    run(folder / "cut", dotted, epochs=1)
    torch.rand(5)
    assert run(folder / "cut", dotted) == records
    ours, theirs = trained(folder / "cut"), trained(folder / "whole")
    assert ours.keys() == theirs.keys()
    assert [name for name in ours if not torch.equal(ours[name], theirs[name])] == []
