"""Whatever ends a command before a trial has begun, the corrected command may use the same name."""

from __future__ import annotations

import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import ray
from mlflow import MlflowClient

from faar_ray.cluster.ray_cluster import connected
from faar_ray.errors import FaarRayError, StorageError
from faar_ray.tune.__main__ import main
from faar_ray.tune.run.jobs import Job
from tests.tune.played import SEARCH, runs, sqlite, tune

pytestmark = pytest.mark.timeout(300)
SpaceFile = Callable[..., Path]
ENDED = {"": "FINISHED", "t000-s0": "FINISHED", "t001-s0": "FINISHED"}


@pytest.fixture
def folder(tmp_path: Path, empty_mlflow: Path, space_file: SpaceFile, monkeypatch: pytest.MonkeyPatch) -> Path:
    """With a search space and MLflow's database."""
    shutil.copyfile(empty_mlflow, tmp_path / "mlflow.db")
    space_file(tmp_path / "space.yaml", **SEARCH)
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("MLFLOW_HTTP_REQUEST_MAX_RETRIES", "0")
    (tmp_path / "bad.safetensors").write_text("no weights")
    (tmp_path / "bad.db").write_text("no database" * 200)
    return tmp_path


def status(folder: Path) -> dict[str, str]:
    return {name: run.info.status for name, run in runs(sqlite(folder)).items()}


@pytest.mark.parametrize(
    ("fault", "message"),
    [
        ("tracking.uri=sqlite:///bad.db", "MLflow cannot use 'sqlite:///"),
        ("tracking.uri=http://127.0.0.1:9", "MLflow cannot use 'http://127.0.0.1:9': Connection refused"),
        ("base.backbone.checkpoint=bad.safetensors", "backbone.checkpoint: bad.safetensors cannot be read as weights"),
        ("storage.path=space.yaml", "space.yaml/tiny cannot be written"),
    ],
)
def test_a_fault_is_exit_2_and_the_corrected_command_runs(
    folder: Path, capsys: pytest.CaptureFixture[str], fault: str, message: str
) -> None:
    assert tune("-q", fault) == 2
    error = capsys.readouterr().err
    assert message in error
    assert "Traceback" not in error
    assert not (folder / "runs" / "tiny").exists()
    assert tune("-q") == 0
    assert status(folder) == ENDED


def end_with(fault: BaseException) -> Callable[[Job, int], None]:
    """A hook that raises before the first trial has written a file."""

    def raise_it(job: Job, epoch: int) -> None:
        raise fault

    return raise_it


def test_an_unexpected_error_leaves_no_folder(folder: Path) -> None:
    with pytest.raises(ZeroDivisionError):
        tune("-q", before_epoch=end_with(ZeroDivisionError()))
    assert not (folder / "runs" / "tiny").exists()


@pytest.mark.parametrize(
    ("fault", "code"), [(KeyboardInterrupt(), 130), (StorageError("storage.path: No space left on device"), 1)]
)
def test_what_can_be_resumed_can_be_started_anew_too_with_another_space(
    folder: Path, fault: BaseException, code: int
) -> None:
    assert tune("-q", before_epoch=end_with(fault)) == code
    assert (folder / "runs" / "tiny" / "space.yaml").is_file()
    assert tune("-q", "optim.lr=1e-3", "tracking.experiment=other") == 0
    client = MlflowClient(sqlite(folder))
    found = client.search_runs([one.experiment_id for one in client.search_experiments()])
    assert sorted(run.info.status for run in found) == ["FINISHED"] * 3 + ["KILLED"] * 2


def test_a_folder_with_anything_else_or_with_a_trial_is_not_taken(
    folder: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert tune("-q", before_epoch=end_with(KeyboardInterrupt())) == 130
    run = folder / "runs" / "tiny"
    (run / "notes.txt").write_text("mine")
    assert tune("-q") == 2
    assert "exists already" in capsys.readouterr().err
    (run / "notes.txt").unlink()
    (run / "trials" / "t000-s0").mkdir()
    (run / "trials" / "t000-s0" / "config.yaml").write_text("")
    assert tune("-q") == 2
    assert "exists already" in capsys.readouterr().err


def test_a_search_that_was_killed_before_any_trial_began_is_resumed_or_started_anew(folder: Path) -> None:
    assert tune("-q", before_epoch=end_with(KeyboardInterrupt())) == 130
    assert tune("-q", "--resume") == 0
    assert status(folder) == ENDED


def test_weights_that_cannot_be_fetched_end_the_command_before_anything_starts(
    folder: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("HF_HUB_CACHE", str(folder / "hub"))
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_OFFLINE", True)
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_CACHE", str(folder / "hub"))
    swin = ["base.backbone.name=swin_tiny_patch4_window7_224", "base.backbone.pretrained=true", "data.image_size=32"]
    assert main(["space.yaml", *swin]) == 2
    assert "the weights of swin_tiny_patch4_window7_224 could not be fetched" in capsys.readouterr().err
    assert not (folder / "runs").exists()


def test_ray_that_cannot_start_is_an_error_of_one_sentence(monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(**options: Any) -> None:
        raise RuntimeError("Failed to start GCS: port in use")

    monkeypatch.setattr(ray, "init", refuse)
    with pytest.raises(FaarRayError, match="Ray cannot start on this machine: Failed to start GCS"), connected(None):
        pass
