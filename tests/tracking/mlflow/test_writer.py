from __future__ import annotations

import json
import sqlite3
import subprocess
import sys
import urllib.parse
import urllib.request
from collections.abc import Callable
from contextlib import AbstractContextManager
from pathlib import Path
from typing import Any

import pytest
import yaml
from mlflow import MlflowClient

from faar_ray.config.trial import TrialConfig, config_id
from faar_ray.errors import ConfigError
from faar_ray.records import State
from faar_ray.tracking.mlflow.runs import KnownRun
from faar_ray.tracking.mlflow.writer import Tracker
from tests.commands import environment

CONFIG = TrialConfig.resolve({"seed": 3}, **{"pdrs.rho_shared": 0.8})


@pytest.fixture(scope="module")
def uri(tmp_path_factory: pytest.TempPathFactory) -> str:
    return f"sqlite:///{tmp_path_factory.mktemp('my runs')}/mlflow.db"


@pytest.fixture(scope="module")
def client(uri: str) -> MlflowClient:
    Tracker(uri, "first")
    return MlflowClient(uri)


@pytest.fixture
def tracker(uri: str, client: MlflowClient, request: pytest.FixtureRequest) -> Tracker:
    result = Tracker(uri, request.node.name)
    result.start_search("rho", "name: rho\n", {"faar_ray.sampler": "tpe"}, seed=5)
    return result


def start(tracker: Tracker, name: str = "t000-s3") -> str:
    return tracker.start_trial(name, CONFIG, {"pdrs.rho_shared": 0.8}, "trial")


def history(client: MlflowClient, run: str, metric: str) -> list[tuple[int, float]]:
    return [(m.step, m.value) for m in client.get_metric_history(run, metric)]


def text(client: MlflowClient, run: str, artifact: str, folder: Path) -> str:
    return Path(client.download_artifacts(run, artifact, str(folder))).read_text()


def test_a_search_is_a_parent_with_its_space_and_environment(
    tracker: Tracker, client: MlflowClient, tmp_path: Path
) -> None:
    run = client.get_run(tracker.parent)

    assert run.info.run_name == "rho"
    assert run.data.tags["faar_ray.role"] == "search"
    assert run.data.tags["faar_ray.sampler"] == "tpe"
    assert text(client, tracker.parent, "space.yaml", tmp_path) == "name: rho\n"
    assert json.loads(text(client, tracker.parent, "environment.json", tmp_path))["seed"] == 5


def test_a_trial_is_a_child_with_searched_keys_only_and_its_whole_config(
    tracker: Tracker, client: MlflowClient, tmp_path: Path
) -> None:
    run = client.get_run(start(tracker))

    assert run.data.params == {"pdrs.rho_shared": "0.8"}
    assert run.data.tags["mlflow.parentRunId"] == tracker.parent
    assert run.data.tags["faar_ray.role"] == "trial"
    assert run.data.tags["faar_ray.trial_id"] == run.info.run_name == "t000-s3"
    assert run.data.tags["faar_ray.config_id"] == config_id(CONFIG)
    assert run.data.tags["faar_ray.seed"] == "3"
    assert run.data.tags["faar_ray.protocol"] == CONFIG.data.evaluated_as == "64x64"
    config = yaml.safe_load(text(client, run.info.run_id, "config.yaml", tmp_path))
    assert TrialConfig.resolve(config) == CONFIG


def test_an_epoch_is_one_batch_with_step_epoch(
    tracker: Tracker, client: MlflowClient, monkeypatch: pytest.MonkeyPatch
) -> None:
    run, batches, plain = start(tracker), list[Any](), tracker._client.log_batch

    def counted(*args: Any, **kwargs: Any) -> Any:
        batches.append(args)
        return plain(*args, **kwargs)

    monkeypatch.setattr(tracker._client, "log_batch", counted)

    for epoch in range(2):
        tracker.log_epochs(run, {epoch: {f"val/m{i}": float(epoch) for i in range(200)}})

    assert len(batches) == 2
    assert history(client, run, "val/m7") == [(0, 0.0), (1, 1.0)]


def test_values_that_are_not_finite_are_left_out(tracker: Tracker, client: MlflowClient) -> None:
    run = start(tracker)

    tracker.log_epochs(run, {0: {"good": 1.0, "nan": float("nan"), "inf": float("inf")}})

    assert client.get_run(run).data.metrics == {"good": 1.0}


def test_more_metrics_than_a_batch_holds_arrive_all(tracker: Tracker, client: MlflowClient) -> None:
    run = start(tracker)

    tracker.log_epochs(run, {0: {f"m{i}": 1.0 for i in range(1001)}})

    assert len(client.get_run(run).data.metrics) == 1001


def test_more_parameters_than_a_batch_holds_arrive_all(tracker: Tracker, client: MlflowClient) -> None:
    run = tracker.start_trial("t1", CONFIG, {f"p{i}": i for i in range(101)}, "control")

    assert len(client.get_run(run).data.params) == 101


def test_replayed_epochs_are_logged_once_also_by_the_next_driver(
    tracker: Tracker, client: MlflowClient, uri: str
) -> None:
    run = start(tracker)
    for epoch in range(3):
        tracker.log_epochs(run, {epoch: {"delta_m": float(epoch)}})
    tracker.log_epochs(run, {1: {"delta_m": 99.0}})

    successor = Tracker(uri, "of another name", KnownRun(tracker.parent))
    assert successor.resume_search()
    assert successor.start_trial("t000-s3", CONFIG, {"pdrs.rho_shared": 0.8}, "trial", run) == run
    for epoch in range(4):
        successor.log_epochs(run, {epoch: {"delta_m": float(epoch)}})

    assert history(client, run, "delta_m") == [(0, 0.0), (1, 1.0), (2, 2.0), (3, 3.0)]


@pytest.mark.parametrize(("state", "status"), [("COMPLETE", "FINISHED"), ("PRUNED", "KILLED"), ("FAIL", "FAILED")])
def test_a_trial_ends_with_the_truth(tracker: Tracker, client: MlflowClient, state: State, status: str) -> None:
    run = start(tracker)
    tracker.log_epochs(run, {4: {"delta_m": 1.0}})

    tracker.end_trial(run, state, metrics={"test/delta_m": 0.5}, reason="because", tags={"faar_ray.epochs": "5"})

    result = client.get_run(run)
    assert result.info.status == status
    assert result.info.end_time is not None
    assert result.data.tags["faar_ray.state"] == state
    assert result.data.tags["faar_ray.reason"] == "because"
    assert history(client, run, "test/delta_m") == [(4, 0.5)]
    assert result.data.tags["faar_ray.epochs"] == "5"


def test_a_trial_cannot_end_running(tracker: Tracker) -> None:
    with pytest.raises(ValueError, match="RUNNING"):
        tracker.end_trial(start(tracker), "RUNNING")


def test_a_continued_run_is_running_again(tracker: Tracker, client: MlflowClient) -> None:
    run = start(tracker)
    tracker.end_trial(run, "FAIL")

    tracker.start_trial("t000-s3", CONFIG, {}, "trial", run)

    assert client.get_run(run).info.status == "RUNNING"


def test_children_are_found_by_trial_id_and_those_left_running_are_closed(
    tracker: Tracker, client: MlflowClient
) -> None:
    done, left = start(tracker, "t000-s0"), start(tracker, "t001-s0")
    tracker.end_trial(done, "COMPLETE")

    assert {name: child.run_id for name, child in tracker.children().items()} == {"t000-s0": done, "t001-s0": left}
    assert tracker.close_running("FAIL", "the driver was killed") == ["t001-s0"]
    assert client.get_run(done).info.status == "FINISHED"
    assert client.get_run(left).info.status == "FAILED"


def test_a_search_ends_with_its_report(tracker: Tracker, client: MlflowClient, tmp_path: Path) -> None:
    (tmp_path / "report").mkdir()
    (tmp_path / "report" / "index.html").write_text("<html>")

    tracker.end_search("FINISHED", tmp_path / "report")

    assert client.get_run(tracker.parent).info.status == "FINISHED"
    assert [f.path for f in client.list_artifacts(tracker.parent, "report")] == ["report/index.html"]


def test_a_deleted_experiment_is_refused_with_the_way_out(uri: str, client: MlflowClient) -> None:
    client.delete_experiment(Tracker(uri, "gone").experiment_id)

    with pytest.raises(ConfigError, match=r"tracking\.experiment: 'gone' was deleted.*restore"):
        Tracker(uri, "gone")


def test_a_file_that_is_no_database_is_refused_and_kept(tmp_path: Path) -> None:
    (tmp_path / "mlflow.db").write_text("precious" * 200)

    with pytest.raises(ConfigError, match=r"tracking\.uri"):
        Tracker(f"sqlite:///{tmp_path}/mlflow.db", "rho")

    assert (tmp_path / "mlflow.db").read_text() == "precious" * 200


def test_making_the_database_says_nothing(tmp_path: Path) -> None:
    code = "from faar_ray.tracking.mlflow.writer import Tracker; Tracker('sqlite:///mlflow.db', 'rho')"
    done = subprocess.run(
        [sys.executable, "-c", code],
        cwd=tmp_path,
        env=environment(),
        capture_output=True,
        text=True,
    )

    assert (done.returncode, done.stdout, done.stderr) == (0, "", "")
    with sqlite3.connect(tmp_path / "mlflow.db") as database:
        assert ("rho",) in database.execute("select name from experiments").fetchall()


@pytest.mark.slow
def test_a_plain_mlflow_ui_beside_the_database_serves_runs_and_artifacts(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, mlflow_ui: Callable[[Path], AbstractContextManager[str]]
) -> None:
    monkeypatch.chdir(tmp_path)
    tracker = Tracker("sqlite:///mlflow.db", "rho")
    parent = tracker.start_search("rho", "name: rho\n", {})

    with mlflow_ui(tmp_path) as address:
        query = urllib.parse.urlencode({"path": "space.yaml", "run_uuid": parent})
        with urllib.request.urlopen(f"{address}/get-artifact?{query}", timeout=30) as answer:
            assert answer.read() == b"name: rho\n"
