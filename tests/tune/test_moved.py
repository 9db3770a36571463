"""A search that goes on after its folder, its project, its storage or its tracking server got a new address."""

from __future__ import annotations

import json
import os
import shutil
import socket
import subprocess
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest
from mlflow import MlflowClient

from faar_ray.report.history import log_report
from tests.commands import wait_until_healthy
from tests.tune.played import SEARCH, ids, runs, sqlite, tune

pytestmark = pytest.mark.timeout(300)
SpaceFile = Callable[..., Path]
MORE = ("budget.trials=3", "--resume", "-q")


@pytest.fixture
def project(tmp_path: Path, empty_mlflow: Path, space_file: SpaceFile, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A folder with a search of two trials that has ended, and MLflow's database."""
    folder = tmp_path / "before"
    folder.mkdir()
    shutil.copyfile(empty_mlflow, folder / "mlflow.db")
    space_file(folder / "space.yaml", **SEARCH)
    monkeypatch.chdir(folder)
    assert tune("-q") == 0
    return folder


def goes_on(uri: str, before: dict[str, str]) -> None:
    """Same parent, same runs, one more trial, all closed, every artifact readable."""
    after, client = runs(uri), MlflowClient(uri)
    assert {name: after[name].info.run_id for name in before} == before
    assert sorted(after) == ["", "t000-s0", "t001-s0", "t002-s0"]
    assert {run.info.status for run in after.values()} == {"FINISHED"}
    assert {run.data.tags["mlflow.parentRunId"] for name, run in after.items() if name} == {before[""]}
    for name, run in after.items():
        listed = {file.path for file in client.list_artifacts(run.info.run_id)}
        assert listed >= ({"config.yaml", "rank_trace.parquet"} if name else {"space.yaml", "report"}), name


def test_a_project_that_was_moved_goes_on_in_the_same_runs_and_leaves_the_old_place_alone(
    project: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    before, moved = ids(sqlite(project)), project.with_name("after it")
    project.rename(moved)
    monkeypatch.chdir(moved)
    capsys.readouterr()
    assert tune(*MORE[:2]) == 0
    assert f"MLflow's artifacts are in {moved}/mlartifacts/tiny now" in capsys.readouterr().out.replace("\n", "")
    assert not project.exists()
    goes_on(sqlite(moved), before)
    assert tune(*MORE[:2]) == 0
    assert "MLflow's artifacts" not in capsys.readouterr().out


def test_a_report_is_not_logged_to_a_folder_that_has_gone(project: Path) -> None:
    moved, parent = project.with_name("after"), ids(sqlite(project))[""]
    project.rename(moved)
    reason = log_report(sqlite(moved), parent, moved / "runs" / "tiny" / "report")
    assert (reason.startswith("the folder of its artifacts"), project.exists()) == (True, False)


def test_a_copied_project_writes_to_its_own_artifacts(project: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    copy = project.with_name("copy")
    shutil.copytree(project, copy)
    files = sorted((project / "mlartifacts").rglob("*"))
    monkeypatch.chdir(copy)
    assert tune(*MORE) == 0
    goes_on(sqlite(copy), ids(sqlite(project)))
    assert sorted((project / "mlartifacts").rglob("*")) == files


def test_a_run_that_was_renamed_goes_on_under_its_new_name(project: Path) -> None:
    before = ids(sqlite(project))
    (project / "runs" / "tiny").rename(project / "runs" / "renamed")
    assert tune("--name", "renamed", *MORE) == 0
    goes_on(sqlite(project), before)
    assert [path.name for path in (project / "runs").iterdir()] == ["renamed"]
    assert [one.name for one in MlflowClient(sqlite(project)).search_experiments() if one.name != "empty"] == [
        "tiny",
        "Default",
    ]
    assert '"study_name":"renamed"' not in (project / "runs" / "renamed" / "study.log").read_text()


def test_a_storage_path_given_anew_is_where_it_goes_on(project: Path, capsys: pytest.CaptureFixture[str]) -> None:
    before = ids(sqlite(project))
    (project / "runs").rename(project / "elsewhere")
    assert tune("storage.path=elsewhere", *MORE) == 0
    goes_on(sqlite(project), before)
    assert not (project / "runs").exists()


def test_a_run_folder_moved_away_from_its_database_is_not_given_a_second_one(
    project: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    before, other = ids(sqlite(project)), project.with_name("other")
    other.mkdir()
    (project / "runs").rename(other / "runs")
    shutil.copyfile(project / "space.yaml", other / "space.yaml")
    monkeypatch.chdir(other)
    assert tune(*MORE) == 2
    error = capsys.readouterr().err
    assert f"tracking.uri: {sqlite(other)} does not have the MLflow run of this folder" in error
    assert f"give tracking.uri={sqlite(project)}" in error
    assert not (other / "mlflow.db").exists()
    assert tune(f"tracking.uri={sqlite(project)}", *MORE) == 0
    goes_on(sqlite(project), before)


def test_a_database_at_its_old_absolute_address_is_asked_for_and_the_old_folder_is_not_made(
    project: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    before, moved = ids(sqlite(project)), project.with_name("after")
    project.rename(moved)
    monkeypatch.chdir(moved)
    assert tune(f"tracking.uri={sqlite(project)}", *MORE) == 2
    assert f"there is no folder {project}" in capsys.readouterr().err
    assert not project.exists()
    assert tune(*MORE) == 0
    goes_on(sqlite(moved), before)


def test_artifacts_that_are_gone_are_said_once_and_the_old_folder_is_not_made(
    project: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    before, moved = ids(sqlite(project)), project.with_name("after")
    project.rename(moved)
    (moved / "mlartifacts").rename(moved / "put away")
    monkeypatch.chdir(moved)
    capsys.readouterr()
    assert tune(*MORE[:2]) == 0
    output = capsys.readouterr().out.replace("\n", " ")
    assert output.count("which is gone: none are logged until it is back") == 1
    assert "rejects" not in output
    assert not project.exists()
    assert {name: run for name, run in ids(sqlite(moved)).items() if name in before} == before

    (moved / "put away").rename(moved / "mlartifacts")
    assert tune(*MORE) == 0
    assert runs(sqlite(moved))["t002-s0"].data.tags["faar_ray.artifacts"] == "rank_trace.parquet rank_trace.png"


@contextmanager
def server(folder: Path, *more: str) -> Iterator[str]:
    """A real tracking server over the database in a folder; gives its address."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    command = [sys.executable, "-m", "mlflow", "server", "--port", str(port), "--workers", "1", *more]
    quiet: dict[str, Any] = {"stdout": subprocess.DEVNULL, "stderr": subprocess.DEVNULL, "start_new_session": True}
    process = subprocess.Popen([*command, "--backend-store-uri", "sqlite:///mlflow.db"], cwd=folder, **quiet)
    try:
        wait_until_healthy(f"http://127.0.0.1:{port}")
        yield f"http://127.0.0.1:{port}"
    finally:
        os.killpg(process.pid, 9)
        process.wait(30)


@pytest.mark.slow
def test_a_local_database_behind_a_server_and_then_on_another_port_has_the_same_runs(
    project: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    before = ids(sqlite(project))
    with server(project) as address:
        assert tune(f"tracking.uri={address}", *MORE) == 0
        goes_on(address, before)
        before = ids(address)
        assert json.loads((project / "runs" / "tiny" / "run.json").read_text())["tracking_uri"] == address
    with server(project) as address:
        assert tune(f"tracking.uri={address}", "budget.trials=4", "--resume", "-q") == 0
        assert before.items() < ids(address).items()
        assert len(ids(address)) == 5

    moved = project.with_name("after")
    project.rename(moved)
    monkeypatch.chdir(moved)
    with server(moved) as address:
        capsys.readouterr()
        assert tune(f"tracking.uri={address}", "budget.trials=5", "--resume") == 0
        assert "which is gone: none are logged until it is back" in capsys.readouterr().out.replace("\n", " ")
        assert not project.exists()
        assert len(ids(address)) == 6


def test_a_new_server_gets_the_whole_search_once_and_the_old_one_knows_it_again(project: Path, tmp_path: Path) -> None:
    before = ids(sqlite(project))
    (tmp_path / "new").mkdir()
    (project / "mlflow.db").rename(project / "old.db")
    shutil.copyfile(project / "old.db", tmp_path / "kept.db")
    uri = sqlite(tmp_path / "new")
    assert tune(f"tracking.uri={uri}", *MORE) == 0
    second = ids(uri)
    assert sorted(second) == ["", "t000-s0", "t001-s0", "t002-s0"]
    assert not set(second.values()) & set(before.values())
    (tmp_path / "new" / "mlflow.db").rename(tmp_path / "new" / "away.db")
    assert tune(f"tracking.uri=sqlite:///{project}/old.db", *MORE) == 0
    goes_on(f"sqlite:///{project}/old.db", before)
