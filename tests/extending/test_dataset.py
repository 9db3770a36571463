"""The data set of docs/extending.md, from outside the package."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import matplotlib.image
import pytest
import torch
from pydantic import ValidationError
from torch import Tensor

from faar_ray.config.registries import DATASETS, DatasetEntry
from faar_ray.config.trial import DataConfig, TrialConfig
from faar_ray.data import load_dataset
from faar_ray.data.__main__ import main
from faar_ray.errors import ConfigError, DataError
from faar_ray.train.preflight import preflight

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
    assert (len(data), data.tasks["semseg"].classes) == (5, ("ground", "disc"))
    sample = data[0]
    assert {name: (tuple(value.shape), value.dtype) for name, value in sample.items()} == {
        "image": ((3, 32, 32), torch.float32),
        "semseg": ((32, 32), torch.int64),
        "depth": ((1, 32, 32), torch.float32),
    }
    assert torch.equal(sample["depth"][0] < 5, sample["semseg"] == 1)


def test_its_contact_sheet_has_a_row_for_each_image(guide: Guide, tmp_path: Path) -> None:
    guide("A data set")
    assert main(["show", "discs", "--images", "2", "--size", "32", "--out", str(tmp_path / "sheet.png")]) == 0
    height, width, _ = matplotlib.image.imread(tmp_path / "sheet.png").shape
    assert height > width / 2


def test_a_data_set_without_files_cannot_be_packed(
    guide: Guide, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    guide("A data set")
    assert main(["pack", "discs", "--out", str(tmp_path)]) == 2
    assert "data.name: discs has no image files to pack" in capsys.readouterr().err


def test_a_data_set_that_needs_a_root_is_refused_without_one(guide: Guide) -> None:
    guide("A data set")
    DATASETS["discs"] = replace(DATASETS["discs"], needs_root=True)
    with pytest.raises(ValidationError, match=r"root: must name the folder of discs, got null"):
        TrialConfig.resolve(**DISCS)
    preflight(TrialConfig.resolve(**DISCS, **{"data.root": "discs"}))


def test_a_name_that_nobody_added_and_a_task_without_labels_are_refused(guide: Guide) -> None:
    with pytest.raises(ValueError, match="pascal_context"):
        DataConfig(name="discs", tasks=("semseg",))
    guide("A data set")
    with pytest.raises(ConfigError, match=r"data\.tasks: discs has semseg, depth, got normals"):
        load_dataset(DataConfig(name="discs", tasks=("normals",)), "val")


@pytest.mark.parametrize(
    ("sample", "reason"),
    [
        ({"semseg": torch.zeros(32, 32)}, "sample 0 has no image"),
        ({"image": torch.zeros(3, 32, 32), "semseg": torch.zeros(16, 32)}, r"must be 32x32, as its image, got 16x32"),
    ],
)
def test_a_sample_that_does_not_fit_is_named(guide: Guide, sample: dict[str, Tensor | None], reason: str) -> None:
    discs = guide("A data set")["Discs"]

    class Odd(discs):  # type: ignore[misc, valid-type]
        def sample(self, index: int, names: object) -> dict[str, Tensor | None]:
            return sample

    DATASETS["odd"] = DatasetEntry({"semseg": 2}, open=Odd)
    with pytest.raises(DataError, match=reason):
        load_dataset(DataConfig(name="odd", tasks=("semseg",), image_size=32), "val")[0]


def test_a_label_that_a_sample_lacks_is_ignored(guide: Guide) -> None:
    discs = guide("A data set")["Discs"]

    class Unlabelled(discs):  # type: ignore[misc, valid-type]
        def sample(self, index: int, names: object) -> dict[str, Tensor | None]:
            return {"image": torch.zeros(3, 20, 30, dtype=torch.uint8), "semseg": None}

    DATASETS["unlabelled"] = DatasetEntry({"semseg": 2, "depth": 1}, open=Unlabelled)
    sample = load_dataset(DataConfig(name="unlabelled", tasks=("semseg", "depth"), image_size=32), "val")[0]
    assert sample["semseg"].unique().tolist() == sample["depth"].unique().tolist() == [255]
    assert sample["image"].shape == (3, 32, 32)
