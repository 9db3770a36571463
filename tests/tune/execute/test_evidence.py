"""A trial on data without labels for a task, in the actor that trains it."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import pytest

from faar_ray.config.run_sections import Resources
from faar_ray.config.trial import DataConfig
from faar_ray.data import DenseDataset, load_dataset
from faar_ray.data.datasets import Split
from faar_ray.storage.run_location import RunLocation
from faar_ray.tune.execute.trainable import TrialActor
from faar_ray.tune.run.jobs import Job, RunContext
from faar_ray.tune.space.space import SearchSpace

Space = Callable[..., SearchSpace]


@pytest.fixture
def first_epoch(space: Space, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Callable[..., dict[str, Any]]:
    """The first result of a trial whose val and test splits have no normals, with these references."""

    def without_normals(config: DataConfig, split: Split, **_: Any) -> DenseDataset:
        dataset = load_dataset(config, split)
        assert isinstance(dataset, DenseDataset)
        if split != "train":
            dataset.stored["normals"][:] = 0
        return dataset

    def train(**references: float) -> dict[str, Any]:
        (tmp_path / "space.yaml").write_text("version: 1")
        job = Job("t000-s0", "trial", space(base={"optim": {"epochs": 1}}).trial_config({}), {}, 0)
        spec = RunContext(RunLocation(tmp_path), Resources(), 1).spec(job, references, references)
        result: dict[str, Any] = TrialActor(spec.to_dict()).train()  # type: ignore[no-untyped-call]
        return result

    def splits(config: DataConfig, names: Sequence[Split], **_: Any) -> dict[Split, DenseDataset]:
        return {split: without_normals(config, split) for split in names}

    monkeypatch.setattr("faar_ray.train.trial.load_datasets", splits)
    monkeypatch.setattr("faar_ray.train.fit.load_dataset", without_normals)
    return train


def test_a_task_without_labels_that_has_a_reference_fails_the_trial_and_is_named(
    first_epoch: Callable[..., dict[str, Any]],
) -> None:
    result = first_epoch(semseg=40.0, normals=20.0)
    assert result["done"]
    assert result["error"] == (
        "delta_m is nan after epoch 0: without labels, or diverged: val/normals/mean_angle, val/normals/rmse_angle"
    )


def test_a_task_without_labels_for_the_reference_too_is_no_part_of_delta_m(
    first_epoch: Callable[..., dict[str, Any]],
) -> None:
    result = first_epoch(semseg=40.0, normals=math.nan)
    assert "error" not in result
    miou = result["metrics"]["val/semseg/miou"]
    assert result["metrics"]["delta_m"] == pytest.approx(100 * (miou - 40) / 40)
    assert result["test"]["test/delta_m"] == pytest.approx(100 * (result["test"]["test/semseg/miou"] - 40) / 40)
    assert math.isnan(result["test"]["test/normals/mean_angle"])
