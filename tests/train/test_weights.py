"""A trial whose backbone has weights from a file: they are known again when it goes on, wherever they lie then."""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Any

import pytest
import torch
import yaml
from safetensors.torch import save_file

from faar_ray.config.trial import TrialConfig
from faar_ray.errors import DataError
from faar_ray.models import micro
from faar_ray.train.__main__ import main
from faar_ray.train.weights import weights_digest, weights_of

TRIAL: dict[str, Any] = {
    "data": {"train_images": 10, "val_images": 5, "image_size": 32, "tasks": ["semseg"]},
    "backbone": {"checkpoint": "w.pth"},
    "ranks": {"init_rank": 2},
    "optim": {"epochs": 1, "batch_size": 10},
    "method": "dora",
}
FOLDER = Path("runs/mine/trials/t000-s0")


def save_weights(name: str, seed: int) -> None:
    torch.manual_seed(seed)
    torch.save(micro.architecture().state_dict(), name)


@pytest.fixture
def trial(tmp_path: Path, empty_mlflow: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A folder with a finished trial on the weights of `w.pth`."""
    monkeypatch.chdir(tmp_path)
    torch.set_num_threads(1)
    shutil.copyfile(empty_mlflow, "mlflow.db")
    Path("mine.yaml").write_text(yaml.safe_dump(TRIAL))
    save_weights("w.pth", seed=1)
    assert main(["mine.yaml"]) == 0
    return tmp_path


def test_a_trial_goes_on_with_the_same_weights_only_wherever_they_lie(
    trial: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    config = (FOLDER / "config.yaml").read_bytes()
    save_file(torch.load("w.pth", weights_only=True), "moved.safetensors")
    save_weights("w.pth", seed=2)
    for arguments in (["--resume"], ["--resume", "backbone.checkpoint=w.pth"]):
        assert main(["mine.yaml", *arguments]) == 2
        assert "w.pth has other weights (sha256 " in capsys.readouterr().err

    Path("w.pth").unlink()
    assert main(["mine.yaml", "--resume"]) == 2
    assert "backbone.checkpoint: no such file: w.pth" in capsys.readouterr().err
    assert main(["mine.yaml", "--resume", "backbone.checkpoint=moved.safetensors"]) == 0
    assert (FOLDER / "config.yaml").read_bytes() == config


def test_the_trials_own_checkpoint_knows_its_weights_too(trial: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """As on a machine whose file of this name is another one."""
    known = json.loads((FOLDER / "run.json").read_text())
    (FOLDER / "run.json").write_text(json.dumps(known | {"weights": {}}))
    save_weights("w.pth", seed=2)
    assert main(["mine.yaml", "--resume"]) == 2
    assert "was trained on other weights of the backbone (sha256 " in capsys.readouterr().err


def config(**backbone: Any) -> TrialConfig:
    return TrialConfig.resolve({"backbone": backbone})


def test_a_digest_is_of_the_weights_and_not_of_the_file(tmp_path: Path) -> None:
    path, other = str(tmp_path / "w.pth"), str(tmp_path / "v.safetensors")
    save_weights(path, seed=1)
    state = torch.load(path, weights_only=True)
    save_file({f"module.{name}": value for name, value in reversed(state.items())}, other)
    digest = weights_digest(config(checkpoint=path))
    assert digest == weights_digest(config(checkpoint=other))
    assert digest == weights_digest(TrialConfig.resolve({"backbone": {"checkpoint": path}, "data": {"image_size": 32}}))

    state["layers.3.blocks.1.mlp.fc2.bias"][0] += 1e-6
    torch.save(state, path)
    assert digest != weights_digest(config(checkpoint=path))


def test_weights_of_no_file_are_those_of_the_package_or_none() -> None:
    shipped = weights_digest(config())
    assert len(shipped) == 64
    assert weights_of([config(), config(pretrained=False)]) == {"swin_micro": shipped}
    with pytest.raises(DataError, match="no such file: nowhere"):
        weights_of([config(checkpoint="nowhere")])
    with pytest.raises(DataError, match="no such file: elsewhere"):
        weights_of([config(checkpoint="nowhere")], {"nowhere": "elsewhere"})


def test_a_file_in_the_home_folder_is_found(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HOME", str(tmp_path))
    save_weights(str(tmp_path / "w.pth"), seed=1)
    assert weights_digest(config(checkpoint="~/w.pth")) == weights_digest(config(checkpoint=str(tmp_path / "w.pth")))
