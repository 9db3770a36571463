"""Tiny trainings, whole ones and forks, and everything in which they could differ."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from itertools import islice
from pathlib import Path
from typing import Any

import torch
from safetensors import safe_open
from torch import Tensor

from faar_ray.config.moments.moment import Moment
from faar_ray.config.trial import TrialConfig
from faar_ray.records import MEASURED, EpochRecord
from faar_ray.storage.run_location import RunLocation, TrialPaths
from faar_ray.tracking.files.rank_trace import read_rank_trace
from faar_ray.train.checkpoint import checkpoint_path, read_checkpoint
from faar_ray.train.fit import fit
from faar_ray.train.fork import begin_as_fork
from faar_ray.train.trial_spec import TrialSpec

RAW: dict[str, Any] = {
    "data": {"tasks": ["semseg", "normals"], "image_size": 32, "train_images": 24, "val_images": 8, "test_images": 8},
    "backbone": {"pretrained": False, "drop_path": 0.2},
    "ranks": {"init_rank": 4},
    "pdrs": {"rho_shared": 0.7, "beta": 0.9, "start_epoch": 1},
    "optim": {"epochs": 3, "batch_size": 8, "warmup_steps": 2, "lr": 1e-3, "decoder_lr": 2e-3},
}
REFERENCES = {"semseg": 30.0, "normals": 40.0}


def config(dotted: Mapping[str, Any] | None = None, **keys: Any) -> TrialConfig:
    return TrialConfig.resolve(RAW, **{**(dotted or {}), **{key.replace("__", "."): v for key, v in keys.items()}})


def spec(folder: Path, name: str, trial: TrialConfig, **facts: Any) -> TrialSpec:
    facts = {"keep_checkpoints": 9, "references": REFERENCES, "test": True, "test_references": REFERENCES} | facts
    return TrialSpec(name, trial, RunLocation(folder), **facts)


def train(trial: TrialSpec, most: int | None = None) -> tuple[list[EpochRecord], dict[str, float]]:
    """As an actor does: fork, then all epochs, or the first `most`; then the test split."""
    if trial.parent:
        begin_as_fork(trial)
    epochs = fit(trial)
    if most is not None:
        records = list(islice(epochs, most))
        epochs.close()
        return records, {}
    records = []
    while True:
        try:
            records.append(next(epochs))
        except StopIteration as end:
            return records, end.value


def fork_at(folder: Path, name: str, trial: TrialConfig, parent: str, moment: Moment) -> TrialSpec:
    return spec(folder, name, trial, parent=parent, inherited_epochs=moment.inherited, redo=moment.at_end)


def timeless(records: list[EpochRecord]) -> list[EpochRecord]:
    return [replace(r, metrics={k: v for k, v in r.metrics.items() if not k.startswith(MEASURED)}) for r in records]


def tensors(folder: Path, name: str, epochs: int) -> dict[str, Tensor]:
    """Weights, optimizer, policy, learning rates and generators after so many epochs."""
    state = read_checkpoint(checkpoint_path(TrialPaths(folder, name).folder, epochs - 1))
    state["policy"].pop("carried", None)
    kept = {part: state[part] for part in ("ranks", "model", "policy", "optimizer", "steps", "scaler", "random")}
    return dict(_flat(kept, ""))


def _flat(value: Any, name: str) -> Any:
    if isinstance(value, Mapping):
        for key, item in value.items():
            yield from _flat(item, f"{name}.{key}")
    elif isinstance(value, list | tuple):
        for i, item in enumerate(value):
            yield from _flat(item, f"{name}.{i}")
    elif isinstance(value, Tensor):
        yield name, value
    elif isinstance(value, bool | int | float):
        yield name, torch.tensor(value, dtype=torch.float64)


def unequal(ours: Mapping[str, Tensor], theirs: Mapping[str, Tensor]) -> list[str]:
    """Names of tensors that are not the same, bit for bit."""
    odd = ours.keys() ^ theirs.keys()
    return sorted(odd | {name for name in ours.keys() & theirs.keys() if not torch.equal(ours[name], theirs[name])})


def assert_same_trial(folder: Path, fork: str, whole: str, ours: Any, theirs: Any) -> None:
    """Records but for what is measured, test metrics, the last state, the trace and the adapter file."""
    assert timeless(ours[0]) == timeless(theirs[0])
    assert ours[1] == theirs[1]
    assert unequal(*(tensors(folder, name, len(theirs[0])) for name in (fork, whole))) == []
    mine, other = (TrialPaths(folder, name) for name in (fork, whole))
    traces = [read_rank_trace(paths.trace).drop_columns(["trial_id"]) for paths in (mine, other)]
    assert traces[0].equals(traces[1])
    assert facts_of(mine.adapter) == facts_of(other.adapter)


def facts_of(adapter: Path) -> dict[str, str]:
    """An adapter file's config, ranks and digest of all tensors."""
    with safe_open(adapter, "pt") as file:
        return dict(file.metadata())
