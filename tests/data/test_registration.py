"""`register`: data sets from Python."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from faar_ray.config.registries import DATASETS
from faar_ray.config.trial import DataConfig
from faar_ray.data import open_split, register
from faar_ray.data.__main__ import main
from faar_ray.errors import ConfigError

SQUARES = """
import torch
from faar_ray.data import register


class Squares:
    def __init__(self, config, split):
        pass

    def __len__(self):
        return 2

    def sample(self, index, names):
        return {"image": torch.zeros(3, 32, 32, dtype=torch.uint8), "height": torch.ones(1, 32, 32)}


register("squares", Squares, tasks={"height": "regression"})
"""


class Empty:
    """A reader without samples."""

    def __init__(self, config: DataConfig, split: str) -> None:
        self.name = config.name

    def __len__(self) -> int:
        return 0

    def sample(self, index: int, names: object) -> dict[str, Any]:
        raise IndexError(index)


@pytest.fixture(autouse=True)
def shipped() -> Iterator[None]:
    """What a test registers goes again."""
    before = dict(DATASETS)
    yield
    DATASETS.clear()
    DATASETS.update(before)


def test_tasks_are_given_as_types_keys_or_definitions_with_classes_beside_them() -> None:
    register(
        "own",
        Empty,
        tasks={"rooms": "segmentation", "heat": {"type": "regression", "unit": "K", "weight": 2.0}, "far": "depth"},
        classes={"rooms": ("floor", "wall")},
    )
    config = DataConfig.model_validate({"name": "own"})
    assert config.tasks == ("rooms", "heat", "far")
    assert config.definition("rooms").classes == ("floor", "wall")
    assert (config.definition("heat").unit, config.definition("heat").weight) == ("K", 2.0)
    assert isinstance(open_split(config, "val"), Empty)
    assert DataConfig.model_validate(config.model_dump(mode="json")) == config


@pytest.mark.parametrize(
    ("name", "tasks", "classes", "fault"),
    [
        ("nyud", {"a": "depth"}, None, "must be another name than .*nyud"),
        ("own", {}, None, "own: must have a task or more"),
        ("own", {"a": "depht"}, None, r"own: a: type: must be one of .*\(did you mean 'depth'\?\)"),
        ("own", {"a": "segmentation"}, None, "own: a: classes: must name two classes or more"),
        ("own", {"a": "depth"}, {"b": ("x", "y")}, "classes of b, which is none of its tasks"),
        ("own", {"a": {"type": "depth", "units": "m"}}, None, r"a: units: unknown key \(did you mean 'unit'\?\)"),
        ("own", {"shared": "depth"}, None, "shared: this name is needed for something else"),
    ],
)
def test_what_is_no_data_set_is_refused(name: str, tasks: Any, classes: Any, fault: str) -> None:
    with pytest.raises(ConfigError, match=fault):
        register(name, Empty, tasks=tasks, classes=classes)


def test_a_module_is_imported_once_and_its_faults_are_told_as_the_configs(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.syspath_prepend(tmp_path)
    body = "from faar_ray.data import register\nregister('own_module', None, tasks={'a': 'depth'})\n"
    (tmp_path / "own_module.py").write_text(body)
    (tmp_path / "wrong_module.py").write_text(body.replace("depth", "depht"))
    (tmp_path / "broken_module.py").write_text("def (\n")
    assert DataConfig.model_validate({"module": "own_module", "name": "own_module"}).tasks == ("a",)
    for module, reason in {
        "wrong_module": "must be one of segmentation",
        "broken_module": "SyntaxError: .*broken_module.py, line 1",
        "no_such_module": "ModuleNotFoundError",
    }.items():
        with pytest.raises(ValueError, match=f"module: must be a Python module that can be imported.*{reason}"):
            DataConfig.model_validate({"module": module, "name": "own_module"})


def test_the_data_commands_import_the_module_that_they_are_given(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.syspath_prepend(tmp_path)
    (tmp_path / "shown_module.py").write_text(SQUARES)
    out = tmp_path / "sheet.png"
    arguments = ["show", "squares", "--size", "32", "--out", str(out)]
    assert main(arguments) == 2, "nobody has registered it"
    assert main([*arguments, "--module", "shown_module"]) == 0
    assert out.is_file()
    assert main([*arguments, "--module", "no_such_module"]) == 2
    assert "--module: must be a Python module that can be imported" in capsys.readouterr().err
