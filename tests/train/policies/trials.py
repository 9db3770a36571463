"""Short trials of rank policies, and what must hold of each."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from itertools import islice
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from faar_ray.config.trial import TrialConfig
from faar_ray.export.read import load_model, read_adapter_file
from faar_ray.models import MultiTaskModel
from faar_ray.records import MEASURED, EpochRecord
from faar_ray.storage.run_location import RunLocation, TrialPaths
from faar_ray.train.checkpoint import checkpoint_path, read_checkpoint
from faar_ray.train.fit import fit
from faar_ray.train.runtimes.runtime import InProcess
from faar_ray.train.trial import Trial
from faar_ray.train.trial_spec import TrialSpec

RAW: dict[str, Any] = {
    "data": {"tasks": ["semseg", "normals"], "image_size": 32, "train_images": 32, "val_images": 8, "test_images": 8},
    "backbone": {"pretrained": False},
    "ranks": {"init_rank": 4},
    "optim": {"epochs": 3, "batch_size": 8, "warmup_steps": 2, "lr": 5e-3, "decoder_lr": 6e-3, "accumulate": 2},
}
STEPS_PER_EPOCH = 4


def config(dotted: Mapping[str, Any]) -> TrialConfig:
    return TrialConfig.resolve({**RAW, "method": dotted["method"]}, **dotted)


def run(folder: Path, dotted: Mapping[str, Any], most: int | None = None) -> list[EpochRecord]:
    """A trial's records, without what equal runs do not share."""
    records = list(islice(fit(TrialSpec("t", config(dotted), RunLocation(folder))), most))
    return [replace(r, metrics={k: v for k, v in r.metrics.items() if not k.startswith(MEASURED)}) for r in records]


def state_of(folder: Path, dotted: Mapping[str, Any]) -> dict[str, Any]:
    return read_checkpoint(checkpoint_path(TrialPaths(folder, "t").folder, config(dotted).optim.epochs - 1))


def restored(folder: Path, dotted: Mapping[str, Any]) -> MultiTaskModel:
    """The model of a trial's last checkpoint, ready to predict."""
    trial = Trial(config(dotted), InProcess("cpu"))
    trial.restore(state_of(folder, dotted))
    return trial.model.eval()


def exported(folder: Path) -> MultiTaskModel:
    """The model of a trial's adapter file."""
    path = TrialPaths(folder, "t").adapter
    return load_model(read_adapter_file(path), path)


def image() -> Tensor:
    return torch.randn(2, 3, 32, 32, generator=torch.Generator().manual_seed(0))


def check_resume(folder: Path, dotted: Mapping[str, Any], whole: Path, records: list[EpochRecord], cut: int) -> None:
    """A trial that stops after `cut` epochs and goes on ends bit for bit as the whole one did."""
    run(folder, dotted, cut)
    torch.rand(5)
    assert run(folder, dotted) == records
    assert differences(state_of(folder, dotted), state_of(whole, dotted)) == ["/records_digest"]  # of times, too


def differences(ours: Any, theirs: Any, path: str = "") -> list[str]:
    """Where two checkpoints differ."""
    if isinstance(ours, dict):
        return [d for key in ours.keys() | theirs.keys() for d in differences(ours[key], theirs[key], f"{path}/{key}")]
    if isinstance(ours, list):
        pairs = zip(ours, theirs, strict=True)
        return [d for i, pair in enumerate(pairs) for d in differences(*pair, f"{path}/{i}")]
    same = torch.equal(ours, theirs) if isinstance(ours, Tensor) else ours == theirs
    return [] if same else [path]
