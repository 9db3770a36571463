"""The data set of docs/extending.md, from outside the package."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import Tensor

from faar_ray.config.registries import DATASETS, DatasetEntry
from faar_ray.config.trial import DataConfig
from faar_ray.data import load_dataset
from faar_ray.errors import DataError

Guide = Callable[[str], dict[str, Any]]
DISCS: dict[str, Any] = {"data.name": "discs", "data.tasks": ("semseg", "depth")}


def test_a_trial_trains_on_the_data_set_of_the_guide(guide: Guide, train: Callable[..., Any]) -> None:
    guide("A data set")
    first, *_, last = train(**DISCS, **{"optim.epochs": 3, "data.train_images": 32})
    assert last.metrics["train/loss"] < first.metrics["train/loss"]
    assert {"val/semseg/miou", "val/depth/rmse"} <= last.metrics.keys()


def test_its_labels_are_decoded_like_those_of_any_other(guide: Guide) -> None:
    guide("A data set")
    config = DataConfig(name="discs", tasks=("semseg", "depth"), image_size=32, val_images=5)
    data = load_dataset(config, "val")
    assert (len(data), data.classes) == (5, {"semseg": ("ground", "disc")})
    sample = data[0]
    assert {name: (tuple(value.shape), value.dtype) for name, value in sample.items()} == {
        "image": ((3, 32, 32), torch.float32),
        "semseg": ((32, 32), torch.int64),
        "depth": ((1, 32, 32), torch.float32),
    }
    assert torch.equal(sample["depth"][0] < 5, sample["semseg"] == 1)


def test_a_name_that_nobody_added_and_a_task_without_labels_are_refused(guide: Guide) -> None:
    with pytest.raises(ValueError, match="pascal_context"):
        DataConfig(name="discs", tasks=("semseg",))
    guide("A data set")
    with pytest.raises(DataError, match=r"data\.tasks: discs has semseg, depth, got normals"):
        load_dataset(DataConfig(name="discs", tasks=("normals",)), "val")


@pytest.mark.parametrize(
    ("sample", "reason"),
    [
        ({"image": torch.zeros(3, 32, 32)}, "sample 0 has no semseg"),
        ({"image": torch.zeros(3, 32, 32), "semseg": torch.zeros(16, 32)}, r"must be 32x32, got \(16, 32\)"),
    ],
)
def test_a_sample_that_does_not_fit_is_named(guide: Guide, sample: dict[str, Tensor], reason: str) -> None:
    discs = guide("A data set")["Discs"]

    class Odd(discs):  # type: ignore[misc, valid-type]
        def sample(self, index: int, names: object) -> dict[str, Tensor]:
            return sample

    DATASETS["odd"] = DatasetEntry({"semseg": 2}, open=Odd)
    with pytest.raises(DataError, match=reason):
        load_dataset(DataConfig(name="odd", tasks=("semseg",), image_size=32), "val")
