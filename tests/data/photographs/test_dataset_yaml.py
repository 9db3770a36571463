"""dataset.yaml: the tasks of a folder, and its faults with their places."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from torch import nn

from faar_ray.config.task_definitions import TaskDefinition, is_taken
from faar_ray.config.trial import DataConfig
from faar_ray.config.trial_file import read_trial
from faar_ray.data import open_split
from faar_ray.data.packed.transfer import upload_packed
from faar_ray.data.packed.write import PackOptions, pack
from faar_ray.data.photographs.dataset_yaml import describe
from faar_ray.errors import ConfigError

from .conftest import DATASET, data_config

Make = Callable[..., Path]


def faults(root: Path) -> list[str]:
    """Faults of a dataset.yaml, without the folder's name."""
    with pytest.raises(ConfigError) as caught:
        describe(str(root))
    return [text.replace(f"{root}/", "") for text in caught.value.faults]


def test_tasks_have_names_classes_and_units_of_their_own(folder: Path) -> None:
    tasks = describe(str(folder))
    assert [*tasks] == ["rooms", "pets", "marked", "slope", "far", "heat"]
    assert {type(task) for task in tasks.values()} == {TaskDefinition}
    assert (tasks["rooms"].classes, tasks["rooms"].channels) == (("floor", "wall", "lamp"), 3)
    assert (tasks["heat"].unit, tasks["heat"].weight) == ("K", 0.5)


def test_all_tasks_of_the_file_are_trained_unless_some_are_named(folder: Path) -> None:
    assert data_config(folder).tasks == ("rooms", "pets", "marked", "slope", "far", "heat")
    some = data_config(folder, tasks=("pets", "rooms"))
    assert some.tasks == ("pets", "rooms")
    assert some.definition("pets").classes == ("none", "cat")


@pytest.mark.parametrize(
    ("old", "new", "fault"),
    [
        ("version: 1", "version: 2", "dataset.yaml:1:1: version: must be 1, got 2"),
        ("version: 1\n", "", "dataset.yaml:1:1: version: required key is missing"),
        (
            "type: binary",
            "type: binery",
            "dataset.yaml:9:12: tasks.marked.type: must be one of segmentation, binary, edge, normals, depth, "
            "regression, got 'binery' (did you mean 'binary'?)",
        ),
        ("unit: K", "units: K", "dataset.yaml:12:28: tasks.heat.units: unknown key (did you mean 'unit'?)"),
        ("[none, cat]", "[cat]", "dataset.yaml:8:30: tasks.pets.classes: must name two classes or more, got ['cat']"),
        (
            "[0, 7, 300]",
            "[0, 7]",
            "dataset.yaml:7:5: tasks.rooms.values: must have one for each of the 3 classes, got 2",
        ),
        ("[0, 7, 300]", "[0, 7, 7]", "dataset.yaml:7:5: tasks.rooms.values: must differ, got [0, 7, 7]"),
        (
            "{type: binary}",
            "{type: binary, values: [0, 1], ignore: 1}",
            "dataset.yaml:9:42: tasks.marked.ignore: must not be among `values`, got 1",
        ),
        ("folder: Pets", "folder: pats", "dataset.yaml:8:52: tasks.pets.folder: no such folder: pats"),
        (
            "folder: Pets",
            "folder: ../Pets",
            "dataset.yaml:8:52: tasks.pets.folder: must be the name of a folder below the data set's, got '../Pets'",
        ),
        ("  far:", "  fear:", "dataset.yaml:11:3: tasks.fear: no such folder: fear"),
        ("version: 1", "version: 1\nimages: photos", "dataset.yaml:2:1: images: no such folder: photos"),
        (
            "version: 1",
            "version: 1\nshares: {train: 0.7, val: 0.2, test: 0.2}",
            "dataset.yaml:2:1: shares: must add up to 1, train and val above 0, got a sum of 1.1",
        ),
        (
            "  far:",
            "  shared:",
            "dataset.yaml:11:3: tasks.shared: this name is needed for something else: choose another",
        ),
    ],
)
def test_a_fault_is_told_with_its_place_and_rule(make_folder: Make, old: str, new: str, fault: str) -> None:
    root = make_folder(images=1, dataset=DATASET.replace(old, new, 1))
    assert faults(root) == [fault]


def test_all_faults_are_told_at_once(make_folder: Make) -> None:
    broken = DATASET.replace("type: binary", "type: binery").replace("unit: K", "units: K")
    assert len(faults(make_folder(images=1, dataset=broken))) == 2


def test_a_folder_without_the_file_names_the_command_that_writes_it(tmp_path: Path) -> None:
    assert faults(tmp_path) == [f"dataset.yaml: no such file; write one with: python -m faar_ray.data init {tmp_path}"]


def test_a_trials_file_shows_the_faults_of_its_data_set_and_what_is_missing(make_folder: Make, tmp_path: Path) -> None:
    root = make_folder(images=1, dataset=DATASET.replace("type: binary", "type: binery"))
    path = tmp_path / "trial.yaml"
    path.write_text(f"data:\n  name: folder\n  root: {root}\n")
    with pytest.raises(ConfigError, match=r"dataset\.yaml:9:12: tasks\.marked\.type"):
        read_trial(path)
    path.write_text("data:\n  name: folder\n")
    with pytest.raises(ConfigError, match=r"trial\.yaml:1:1: data\.root: must name the folder of folder, got null"):
        read_trial(path)
    path.write_text(f"data:\n  name: folder\n  root: {tmp_path / 'nowhere'}\n")
    with pytest.raises(ConfigError, match=r"trial\.yaml:3:3: data\.root: no such folder: .*nowhere"):
        read_trial(path)


def test_a_change_of_the_file_is_seen(make_folder: Make) -> None:
    root = make_folder(images=1)
    describe(str(root))
    (root / "dataset.yaml").write_text(DATASET.replace("[none, cat]", "[none, cat, dog]"))
    assert describe(str(root))["pets"].channels == 3


def test_no_task_can_have_the_name_of_an_attribute_of_torchs_modules() -> None:
    public = [name for name in dir(nn.ModuleDict()) if not name.startswith("_") and name.islower()]
    assert [name for name in public if not is_taken(name)] == []
    assert not any(map(is_taken, ("semseg", "normals", "loading", "stages", "getter")))


def test_packed_shards_describe_themselves_in_a_folder_and_in_a_bucket(folder: Path, s3: str, tmp_path: Path) -> None:
    config = data_config(folder)
    pack(config, tmp_path / "packed", PackOptions(), processes=0)
    upload_packed(tmp_path / "packed", f"{s3}/own", "--out")
    for root in (tmp_path / "packed", f"{s3}/own"):
        packed = DataConfig.model_validate({"name": "folder", "root": str(root)})
        assert packed.tasks == config.tasks
        assert all(packed.definition(task) == config.definition(task) for task in config.tasks)
    with pytest.raises(ValueError, match=r"root: .*nothing holds no packed shards; upload them with"):
        DataConfig.model_validate({"name": "folder", "root": f"{s3}/nothing"})


def test_packed_samples_are_those_of_the_folder(folder: Path, tmp_path: Path) -> None:
    config = data_config(folder)
    pack(config, tmp_path, PackOptions(), processes=0)
    own, packed = (open_split(data_config(root), "train") for root in (folder, tmp_path))
    assert len(own) == len(packed)
    for index in range(len(own)):
        mine, theirs = (reader.sample(index, ("image", *config.tasks)) for reader in (own, packed))
        for name, value in mine.items():
            other = theirs[name]
            assert (value is None) == (other is None), name
            assert value is None or torch.equal(value.float().nan_to_num(-9), other.float().nan_to_num(-9)), name
