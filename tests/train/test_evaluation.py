"""Evaluation at the labels' own size: against a plain reference, and on two workers."""

from __future__ import annotations

import json
import math
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import torch
import torch.distributed as dist
import torch.nn.functional as F
from torch import Tensor
from torch.multiprocessing.spawn import spawn

from faar_ray.config.data_section import DataConfig
from faar_ray.config.registries import DATASETS, DatasetEntry
from faar_ray.config.trial import TrialConfig
from faar_ray.data import load_dataset
from faar_ray.data.packed.write import PackOptions, pack
from faar_ray.data.samples import SampleDataset
from faar_ray.train.evaluation import evaluate
from faar_ray.train.runtimes.distributed import Distributed
from faar_ray.train.runtimes.runtime import InProcess, Runtime
from faar_ray.train.trial import Trial
from tests.process_group import leave

from ..data.packed.conftest import CHANNELS, Photographs

NAME = "photographs"
"""Images of 20 x 30 and of 26 x 22 pixels; every third has no depth."""


@pytest.fixture(autouse=True)
def registered() -> Iterator[None]:
    register()
    yield
    del DATASETS[NAME]


def register() -> None:
    DATASETS[NAME] = DatasetEntry(CHANNELS, open=Photographs, needs_root=True)


@pytest.fixture
def root(tmp_path: Path) -> Path:
    data = DataConfig(name=NAME, tasks=tuple(CHANNELS), root="anywhere", image_size=32)
    pack(data, tmp_path / "packed", PackOptions(), processes=0)
    return tmp_path / "packed"


def trial_on(root: Path, evaluation: str = "original", runtime: Runtime | None = None) -> Trial:
    raw: dict[str, Any] = {
        "data": {"name": NAME, "tasks": list(CHANNELS), "root": str(root), "image_size": [32, 64],
                 "protocol": "papers", "evaluation": evaluation, "loader_workers": 0},
        "backbone": {"pretrained": False},
        "ranks": {"init_rank": 4},
        "optim": {"epochs": 1, "precision": "fp64"},
    }  # fmt: skip
    return Trial(TrialConfig.resolve(raw), runtime or InProcess("cpu"))


@torch.no_grad()
def predicted_and_labels(trial: Trial) -> Iterator[tuple[dict[str, Tensor], dict[str, Tensor]]]:
    """Image by image: predictions resized to the label's size, and labels as the reader gives them."""
    data = trial.val_data
    assert isinstance(data, SampleDataset)
    trial.model.eval()
    for index in range(len(data)):
        labels = {name: label.double() for name, label in data.samples.read(index).items() if name != "image"}
        size = labels["semseg"].shape[-2:]
        output = trial.model(data[index]["image"][None].double())
        yield {name: F.interpolate(output[name], size=size, mode="bilinear")[0] for name in labels}, labels


def test_metrics_at_the_labels_own_size_equal_a_plain_reference(root: Path) -> None:
    trial = trial_on(root)
    both, either = torch.zeros(5), torch.zeros(5)
    angles, squares, edges = [], [], []
    for predicted, labels in predicted_and_labels(trial):
        known = labels["semseg"] != 255
        for label in range(5):
            chosen, true = (predicted["semseg"].argmax(0) == label) & known, labels["semseg"] == label
            both[label] += (chosen & true).sum()
            either[label] += (chosen | true).sum()
        normal = labels["normals"].flatten(1)
        cosine = (F.normalize(predicted["normals"].flatten(1), dim=0) * normal).sum(0)[normal.norm(dim=0) > 0.5]
        angles.append(cosine.acos().rad2deg())
        depth = labels["depth"]
        squares.append((predicted["depth"] - depth).square()[depth.isfinite() & (depth != 255)])
        edges.append(torch.stack([predicted["edge"].sigmoid().flatten(), labels["edge"].flatten()]))

    found = evaluate(trial, trial.val_data, split="val")
    assert found["val/semseg/miou"] == pytest.approx(100 * (both / either).mean().item(), rel=1e-5)
    assert found["val/normals/mean_angle"] == pytest.approx(torch.cat(angles).mean().item(), rel=1e-5)
    assert found["val/depth/rmse"] == pytest.approx(math.sqrt(torch.cat(squares).mean().item()), rel=1e-5)
    probability, edge = torch.cat(edges, 1)
    assert found["val/edge/f1"] == pytest.approx(best_f1(probability, edge == 1), rel=1e-4)

    resized = trial_on(root, "resized")
    at_one_size = evaluate(resized, resized.val_data, split="val")
    assert all(abs(found[name] - value) > 1e-3 for name, value in at_one_size.items())


def best_f1(probability: Tensor, true: Tensor) -> float:
    values: list[float] = []
    for threshold in torch.linspace(0, 1, 99, dtype=torch.float64):
        chosen = probability >= threshold
        values.append(200 * (chosen & true).sum().item() / (chosen.sum() + true.sum()).item())
    return max(values)


def worker(rank: int, workers: int, root: Path) -> None:
    torch.set_num_threads(1)
    register()
    dist.init_process_group("gloo", f"file://{root}/store", rank=rank, world_size=workers)
    trial = trial_on(root, runtime=Distributed(torch.device("cpu")))
    found = evaluate(trial, load_dataset(trial.config.data, "test"), split="test")
    if rank == 0:
        (root / "found.json").write_text(json.dumps(found))
    leave()


@pytest.mark.slow
def test_two_workers_equal_one_at_the_labels_own_size(root: Path) -> None:
    trial = trial_on(root)
    one = evaluate(trial, load_dataset(trial.config.data, "test"), split="test")
    spawn(worker, (2, root), nprocs=2)
    two = json.loads((root / "found.json").read_text())
    assert "test/edge/ods_f" in one
    assert two == pytest.approx(one, rel=1e-8)
