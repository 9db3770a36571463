from __future__ import annotations

from pathlib import Path

import pytest
import yaml

from faar_ray.config.trial import TrialConfig
from faar_ray.config.trial_file import read_trial
from faar_ray.errors import ConfigError


def written(folder: Path, text: str) -> Path:
    path = folder / "a.yaml"
    path.write_text(text)
    return path


def test_a_trial_file_is_a_trial_config_with_run_level_keys(tmp_path: Path) -> None:
    text = "method: lora\nname: one\nstorage: {path: out}\nreferences: {semseg: 40, human_parts: 30, normals: 25.5}\n"
    trial = read_trial(written(tmp_path, text), ["ranks.init_rank=4"])
    assert trial.config == TrialConfig.resolve({"method": "lora", "ranks": {"init_rank": 4}})
    assert type(trial.config) is TrialConfig
    assert (trial.name, trial.storage.path, trial.resources.workers) == ("one", "out", 1)
    assert trial.references == {"semseg": 40.0, "human_parts": 30.0, "normals": 25.5}


def test_the_config_that_a_trial_leaves_behind_can_be_trained_again(tmp_path: Path) -> None:
    config = TrialConfig.resolve({"method": "single_task", "data": {"tasks": ["depth"]}})
    again = read_trial(written(tmp_path, yaml.safe_dump(config.model_dump(mode="json"))))
    assert again.config == config
    assert (again.name, again.references) == (None, None)


@pytest.mark.parametrize(
    ("text", "fault"),
    [
        ("pdrs: {rho_shared: 1.2}", "1:8: pdrs.rho_shared: must satisfy 0 < rho <= 1, got 1.2"),
        ("nmae: x", "1:1: nmae: unknown key (did you mean 'name'?)"),
        ("seed: 1\nparameters: {}", "2:1: parameters: unknown key"),
        ("name: ../x", "1:1: name: must be a folder's name: letters, digits, '.', '_' and '-', at most 100 or null"),
        ("references: {semseg: 1}", "1:1: references: must have a number for every task, missing human_parts, normals"),
        ("adapter: {kind: none}", "1:1: ranks.kind: must be fixed where adapter.kind is none, got 'pdrs'"),
        ("method: single_task", "1:1: data.tasks: must be one task for method single_task"),
        ("pdrs:\n  free_epochs: 6", "1:1: pdrs.start_epoch: must be below optim.epochs - pdrs.free_epochs = 0"),
    ],
)
def test_a_fault_is_one_line_with_its_place(tmp_path: Path, text: str, fault: str) -> None:
    with pytest.raises(ConfigError) as error:
        read_trial(written(tmp_path, text))
    (message,) = error.value.faults
    assert message.startswith(f"{tmp_path}/a.yaml:{fault}")


def test_a_bad_override_is_named_as_one(tmp_path: Path) -> None:
    with pytest.raises(ConfigError) as error:
        read_trial(written(tmp_path, "seed: 1\n"), ["pdrs.beta=2", "pdrs.rho_shared"])
    assert error.value.faults == ("command line: pdrs.rho_shared: must be key=value (null for nothing)",)
    with pytest.raises(ConfigError) as error:
        read_trial(written(tmp_path, "seed: 1\n"), ["pdrs.beta=2", "pdrs.x.y=2"])
    assert error.value.faults == (
        "command line: pdrs.beta=2: must satisfy 0 <= beta < 1, got 2",
        "command line: pdrs.x.y=2: pdrs.x: unknown key",
    )
