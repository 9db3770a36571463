"""Each trial has one MLflow run, closed, whatever happened to it: a killed driver, ghosts, runs that were deleted."""

from __future__ import annotations

import shutil
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest
from mlflow import MlflowClient
from mlflow.entities import Run, ViewType
from mlflow.store.tracking.sqlalchemy_store import SqlAlchemyStore

from tests.commands import environment
from tests.tune.played import SEARCH, ids, runs, sqlite, tune

pytestmark = pytest.mark.timeout(300)
SpaceFile = Callable[..., Path]
MORE = ("budget.trials=3", "--resume")
ALL = ["", "t000-s0", "t001-s0", "t002-s0"]


@pytest.fixture
def folder(tmp_path: Path, empty_mlflow: Path, space_file: SpaceFile, monkeypatch: pytest.MonkeyPatch) -> Path:
    """With a search space and MLflow's database."""
    shutil.copyfile(empty_mlflow, tmp_path / "mlflow.db")
    space_file(tmp_path / "space.yaml", **SEARCH)
    monkeypatch.chdir(tmp_path)
    return tmp_path


@pytest.fixture
def ended(folder: Path) -> Path:
    """With a search of two trials that has ended."""
    assert tune("-q") == 0
    return folder


@pytest.fixture(scope="module")
def killed_once(tmp_path_factory: pytest.TempPathFactory, empty_mlflow: Path, space_file: SpaceFile) -> Path:
    """With a search whose driver was killed in the middle of its second trial."""
    folder = tmp_path_factory.mktemp("killed")
    shutil.copyfile(empty_mlflow, folder / "mlflow.db")
    space_file(folder / "space.yaml", **SEARCH)
    command = [sys.executable, "-m", "tests.tune.played", "t001-s0", "2", "-q"]
    done = subprocess.run(command, cwd=folder, env=environment(), capture_output=True, text=True)
    assert done.returncode == -9, done.stderr
    return folder


@pytest.fixture
def killed(killed_once: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A copy of it."""
    shutil.copytree(killed_once, tmp_path, dirs_exist_ok=True)
    monkeypatch.chdir(tmp_path)
    return tmp_path


def statuses(uri: str) -> dict[str, str]:
    return {name: run.info.status for name, run in runs(uri).items()}


def ghost(uri: str, of: Run) -> str:
    """Another run of the same trial, left open; its id."""
    client = MlflowClient(uri)
    tags = {key: of.data.tags[key] for key in ("faar_ray.trial_id", "mlflow.parentRunId", "faar_ray.role")}
    return str(client.create_run(of.info.experiment_id, tags=tags, run_name=of.info.run_name).info.run_id)


@pytest.mark.parametrize("more", [(), ("budget.time=0.01s",)])
def test_what_a_killed_driver_left_open_is_continued_and_closed(killed: Path, more: tuple[str, ...]) -> None:
    before = ids(sqlite(killed))
    assert statuses(sqlite(killed)) == {"": "RUNNING", "t000-s0": "FINISHED", "t001-s0": "RUNNING"}
    assert tune("--resume", *more) == 0
    assert ids(sqlite(killed)) == before
    at_end = "KILLED" if more else "FINISHED"  # beyond its time the search does not go on with the trial
    assert statuses(sqlite(killed)) == {"": "FINISHED", "t000-s0": "FINISHED", "t001-s0": at_end}


def test_a_parent_whose_id_was_not_written_down_is_found_by_its_tag(killed: Path) -> None:
    before, facts = ids(sqlite(killed)), killed / "runs" / "tiny" / "run.json"
    facts.write_text(facts.read_text().replace(before[""], ""))
    assert tune("--resume") == 0
    assert ids(sqlite(killed)) == before
    assert set(statuses(sqlite(killed)).values()) == {"FINISHED"}


def test_ghosts_of_a_trial_are_closed_by_resume_and_its_own_run_is_kept(ended: Path) -> None:
    before = runs(sqlite(ended))
    ghosts = [ghost(sqlite(ended), before["t001-s0"]) for _ in range(3)]
    assert tune(*MORE) == 0
    client = MlflowClient(sqlite(ended))
    closed = [client.get_run(run) for run in ghosts]
    assert {run.info.status for run in closed} == {"FAILED"}
    assert {run.data.tags["faar_ray.duplicate_of"] for run in closed} == {"t001-s0"}
    for run in ghosts:
        client.delete_run(run)
    assert tune(*MORE) == 0
    experiment = [before[""].info.experiment_id]
    after = {run.data.tags.get("faar_ray.trial_id", ""): run for run in client.search_runs(experiment)}
    assert (sorted(after), len(client.search_runs(experiment))) == (ALL, 4)  # deleted ghosts stay deleted
    assert {after[name].info.run_id for name in before} == {run.info.run_id for run in before.values()}


@pytest.mark.parametrize("deleted", [[""], ["t000-s0"], ["", "t000-s0", "t001-s0"]])
def test_runs_that_were_deleted_in_mlflow_are_restored_and_it_is_said(
    ended: Path, deleted: list[str], capsys: pytest.CaptureFixture[str]
) -> None:
    before, client = ids(sqlite(ended)), MlflowClient(sqlite(ended))
    for name in deleted:
        client.delete_run(before[name])
    capsys.readouterr()
    assert tune(*MORE) == 0
    output = capsys.readouterr().out.replace("\n", " ")
    assert (f"MLflow run {before['']} of this folder had been deleted; it is restored" in output) == ("" in deleted)
    assert ("had been deleted in MLflow; they are restored" in output) == ("t000-s0" in deleted)
    after = runs(sqlite(ended))
    assert sorted(after) == ALL
    assert {after[name].info.run_id for name in before} == set(before.values())
    assert {(run.info.lifecycle_stage, run.info.status) for run in after.values()} == {("active", "FINISHED")}


def test_a_deleted_experiment_is_refused_with_the_remedy_which_works(
    ended: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    before, client = ids(sqlite(ended)), MlflowClient(sqlite(ended))
    experiment = runs(sqlite(ended))[""].info.experiment_id
    client.delete_experiment(experiment)
    assert tune(*MORE) == 2
    assert f"`mlflow experiments restore -x {experiment}` brings it back" in capsys.readouterr().err
    client.restore_experiment(experiment)
    assert tune(*MORE) == 0
    after = ids(sqlite(ended))
    assert (sorted(after), before.items() <= after.items()) == (ALL, True)


@pytest.mark.parametrize("name", ["", "t000-s0"])
def test_a_run_that_is_gone_for_good_is_made_again_from_the_disk_and_the_others_are_kept(
    ended: Path, name: str, capsys: pytest.CaptureFixture[str]
) -> None:
    before = ids(sqlite(ended))
    SqlAlchemyStore(sqlite(ended), str(ended))._hard_delete_run(before[name])
    capsys.readouterr()
    assert tune(*MORE) == 0
    said = f"MLflow has no run {before['']} of this folder (2 runs of its trials are kept)"
    assert (said in capsys.readouterr().out.replace("\n", " ")) == (name == "")
    after = runs(sqlite(ended))
    assert sorted(after) == ALL
    assert {key: after[key].info.run_id for key in before if key != name} == {
        key: run for key, run in before.items() if key != name
    }
    assert {run.data.tags["mlflow.parentRunId"] for key, run in after.items() if key} == {after[""].info.run_id}
    assert after["t000-s0"].data.metrics["delta_m"] == pytest.approx(11.5)
    assert MlflowClient(sqlite(ended)).search_runs(["0"], run_view_type=ViewType.ALL) == []
