"""Images that lack the label of a task: its loss and its metrics count what is there."""

from __future__ import annotations

import math
from pathlib import Path
from typing import Any

import pytest
import torch

from faar_ray.config.trial import TrialConfig
from faar_ray.data import load_dataset
from faar_ray.storage.run_location import RunLocation
from faar_ray.train.evaluation import evaluate
from faar_ray.train.fit import fit
from faar_ray.train.runtimes.runtime import InProcess
from faar_ray.train.step import train_step
from faar_ray.train.trial import Trial
from faar_ray.train.trial_spec import TrialSpec

from ..data.photographs.conftest import write_folder

TRAIN = [f"{index:04d}" for index in range(4, 12)]
HEAT = ["0001", "0002", "0004", "0005", "0007", "0008", "0010", "0011"]
"""Images that have a label of `heat`; the others lack it."""
METRICS = {
    "rooms": ["miou"],
    "pets": ["miou"],
    "marked": ["miou"],
    "slope": ["mean_angle", "rmse_angle"],
    "far": ["rmse"],
    "heat": ["rmse"],
}


def folder_with(root: Path, val: list[str]) -> Path:
    """The folder of the tests of `folder`, with lists."""
    write_folder(root)
    (root / "splits").mkdir()
    for split, names in {"train": TRAIN, "val": val}.items():
        (root / "splits" / f"{split}.txt").write_text("\n".join(names))
    return root


def config_of(root: Path, **dotted: Any) -> TrialConfig:
    """A trial with all tasks of a folder."""
    return TrialConfig.resolve(
        {
            "data": {"name": "folder", "root": str(root), "image_size": 32, "loader_workers": 0, "protocol": "papers"},
            "backbone": {"pretrained": False},
            "ranks": {"init_rank": 4},
            "pdrs": {"start_epoch": 0, "free_epochs": 0},
            "optim": {"epochs": 1, "batch_size": 4, "warmup_steps": 1},
        },
        **dotted,
    )


@pytest.mark.parametrize("batch_size", [1, 4])
def test_a_trial_on_a_partly_labelled_folder_has_a_number_for_everything(tmp_path: Path, batch_size: int) -> None:
    root = folder_with(tmp_path / "own", ["0000", "0001", "0002", "0003"])
    config = config_of(root, **{"optim.batch_size": batch_size})
    spec = TrialSpec("t", config, RunLocation(tmp_path / "run"), test=True)
    epochs = fit(spec)
    record = next(epochs)
    with pytest.raises(StopIteration) as end:
        next(epochs)

    names = [f"{task}/{metric}" for task, metrics in METRICS.items() for metric in metrics]
    assert {f"val/{name}" for name in names} == {name for name in record.metrics if name.startswith("val/")}
    assert {f"test/{name}" for name in names} <= end.value.value.keys()
    losses = {task: record.metrics[f"train/loss/{task}"] for task in METRICS}
    assert all(math.isfinite(value) and value > 0 for value in losses.values())
    assert all(math.isfinite(value) for value in record.metrics.values())
    assert {row.task for row in record.ranks} == {"shared", *METRICS}


def test_a_metric_is_that_of_the_labelled_images_alone(tmp_path: Path) -> None:
    everything = folder_with(tmp_path / "all", ["0000", "0001", "0002", "0003"])
    labelled = folder_with(tmp_path / "labelled", ["0001", "0002"])
    none = folder_with(tmp_path / "none", ["0000", "0003"])
    trial = Trial(config_of(everything), InProcess("cpu"))

    def metrics(root: Path) -> dict[str, float]:
        return evaluate(trial, load_dataset(config_of(root).data, "val"), split="val")

    of_all, of_labelled, of_none = map(metrics, (everything, labelled, none))
    assert of_all["val/heat/rmse"] == pytest.approx(of_labelled["val/heat/rmse"], rel=1e-6)
    assert of_all["val/rooms/miou"] != of_labelled["val/rooms/miou"], "all four images have rooms"
    assert math.isnan(of_none["val/heat/rmse"])


def test_the_loss_of_a_step_is_the_mean_over_the_labelled_images(tmp_path: Path) -> None:
    trial = Trial(config_of(folder_with(tmp_path / "own", ["0000", "0001"])), InProcess("cpu"))
    trial.model.eval()
    batch = next(iter(trial.train_data.batches(batch_size=8, seed=0, epoch=0, train=False)))
    has_heat = torch.tensor([name in HEAT for name in TRAIN])
    assert batch["heat"].isfinite().flatten(1).all(1).tolist() == has_heat.tolist()

    with torch.no_grad():
        predicted = trial.model(batch["image"])["heat"]
    expected = (predicted - batch["heat"])[has_heat].abs().mean()
    losses = train_step(trial, batch, 0)
    assert losses["heat"].item() == pytest.approx(expected.item(), rel=1e-5)
    assert all(value.isfinite() for value in losses.values())
