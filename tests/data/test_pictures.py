"""Colours: a definition's own, known ones, distinct ones; what has no label is grey; sheets show what is there."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch

from faar_ray.config.task_definitions import TaskDefinition
from faar_ray.config.trial import DataConfig
from faar_ray.data import load_dataset
from faar_ray.data.contact_sheet import contact_sheet
from faar_ray.data.pictures import IGNORED_COLOUR, class_colours, measured_range, picture
from faar_ray.tasks import Task, tasks_of

from .photographs.trees import nyud_tree


def task(**definition: object) -> Task:
    definitions = {"mine": TaskDefinition.model_validate(definition)}
    return tasks_of(DataConfig(tasks=("mine",), definitions=definitions))["mine"]


def test_a_definition_s_colours_win_and_others_are_distinct() -> None:
    own = task(type="segmentation", classes=["road", "tree"], colours=["#102030", "#ffffff"])
    assert (class_colours(own) * 255).round().tolist() == [[16, 32, 48], [255, 255, 255]]
    many = task(type="segmentation", classes=[f"c{i}" for i in range(60)])
    assert len(np.unique(class_colours(many), axis=0)) == 60
    voc = tasks_of(DataConfig(name="pascal_context", tasks=("semseg",)))["semseg"]
    assert (class_colours(voc)[15] * 255).round().tolist() == [192, 128, 128]  # VOC's person


@pytest.mark.parametrize(
    ("definition", "value"),
    [
        ({"type": "segmentation", "classes": ["a", "b"]}, torch.tensor([[255, 1]])),
        ({"type": "binary"}, torch.tensor([[[255.0, 1.0]]])),
        ({"type": "depth"}, torch.tensor([[[255.0, 1.0]]])),
        ({"type": "regression"}, torch.tensor([[[float("nan"), 1.0]]])),
        ({"type": "normals"}, torch.tensor([[[0.0, 0.0]], [[0.0, 0.0]], [[0.0, -1.0]]])),
    ],
)
def test_what_has_no_label_is_grey(definition: dict[str, object], value: torch.Tensor) -> None:
    colours = picture(task(**definition), value)
    assert colours.shape == (1, 2, 3)
    assert np.allclose(colours[0, 0], IGNORED_COLOUR) and not np.allclose(colours[0, 1], IGNORED_COLOUR)


def test_depth_spans_a_room_and_other_values_their_own_range() -> None:
    room, street = np.linspace(0.5, 6, 50), np.linspace(3, 80, 50)
    assert measured_range(task(type="depth"), room) == (0.0, 9.0)
    assert measured_range(task(type="depth"), street)[1] == pytest.approx(78.5, abs=1)
    low, high = measured_range(task(type="regression", unit="kPa"), street)
    assert (low, high) == pytest.approx((4.5, 78.5), abs=1)


def test_a_sheet_has_a_row_per_image_and_epoch_and_names_the_classes_that_are_seen(tmp_path: Path) -> None:
    tasks = ("semseg", "depth")
    config = DataConfig(name="nyud", root=str(nyud_tree(tmp_path)), tasks=tasks, image_size=(32, 48), loader_workers=0)
    figure = contact_sheet({"train": load_dataset(config, "train")}, 2, augmented=2)
    above, below = figure.subfigs
    labels = [axes.get_ylabel() for axes in above.axes if axes.get_ylabel()]
    assert labels == ["train 0", "epoch 0", "epoch 1", "train 1", "epoch 0", "epoch 1"]
    titles = [legend.get_title().get_text() for legend in below.legends]
    assert titles == ["semantic classes", "depth"]
    entries = [text.get_text() for text in below.legends[0].get_texts()]
    assert "and 16 more" in entries and entries[-1] == "no label"
