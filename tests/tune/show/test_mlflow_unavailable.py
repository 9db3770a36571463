"""MLflow locked, killed or moved in the middle of a search: nobody waits for it, and in the end it lacks nothing.

The searches are real but for their trials, which replay recorded epochs at a pace.
"""

from __future__ import annotations

import os
import socket
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest
from mlflow import MlflowClient

from faar_ray.bench.replay.paced import WRITE_MS
from faar_ray.report.results import read_results
from faar_ray.storage.run_location import TrialPaths
from faar_ray.tracking.files.epoch_file import read_epochs
from faar_ray.tracking.mlflow.store import metric_name
from tests.commands import environment, wait_until_healthy

pytestmark = [pytest.mark.faults, pytest.mark.timeout(900)]
STATUS = {"COMPLETE": "FINISHED", "PRUNED": "KILLED", "FAIL": "FAILED"}
PACE_S, LOCK_S, TIMEOUT_S = 0.7, 15, 10
SEARCH: dict[str, Any] = {
    "budget": {"trials": 8},
    "resources": {"max_concurrent": 1},
    "base": {"optim": {"epochs": 6}},
}
REPLAY = f"""
import sys
from sqlalchemy import event
from sqlalchemy.engine import Engine

def shorter(conn, cursor, statement, parameters, *_):
    return statement.replace("busy_timeout = 20000", "busy_timeout = 500"), parameters

event.listen(Engine, "before_cursor_execute", shorter, retval=True)
from faar_ray.bench.replay.paced import at_pace
from faar_ray.tune import search
from faar_ray.tune.__main__ import main

search.run_search.__kwdefaults__["parts"] = search.Parts(actor=at_pace({PACE_S}))
sys.exit(main())
"""
"""`python -m faar_ray.tune` with replayed trials, and with 0.5 s of patience for a lock, where MLflow has 20 s."""


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory, space_file: Callable[..., Path]) -> Path:
    path = tmp_path_factory.mktemp("unavailable")
    space_file(path / "space.yaml", **SEARCH)
    return path


def start(folder: Path, name: str, *arguments: str, timeout_s: int = TIMEOUT_S) -> subprocess.Popen[str]:
    command = [sys.executable, "-c", REPLAY, "space.yaml", f"tracking.experiment={name}", "--name", name]
    env = environment({"FAAR_RAY_MLFLOW_TIMEOUT_S": str(timeout_s)})
    pipes: dict[str, Any] = {"stdout": subprocess.PIPE, "stderr": subprocess.STDOUT, "text": True}
    return subprocess.Popen([*command, *arguments], cwd=folder, env=env, **pipes)


def ended(process: subprocess.Popen[str]) -> str:
    output, _ = process.communicate(timeout=600)
    assert process.returncode == 0, output
    assert "Traceback" not in output
    return output


def journalled_epochs(folder: Path, name: str) -> int:
    """Number of epochs in the journal."""
    journal = folder / "runs" / name / "study.log"
    return journal.read_text().count('"epoch/') if journal.exists() else 0


def wait_for(process: subprocess.Popen[str], folder: Path, name: str, epochs: int) -> None:
    """Until the journal holds so many epochs."""
    while journalled_epochs(folder, name) < epochs:
        assert process.poll() is None, process.communicate()[0]
        time.sleep(0.05)


def is_whole(folder: Path, name: str, uri: str) -> None:
    """MLflow holds once what the disk holds: every epoch's metrics, params, artifacts, test metrics, end states."""
    client, run = MlflowClient(uri), folder / "runs" / name
    (experiment,) = [e for e in client.search_experiments() if e.name == name]
    runs = client.search_runs([experiment.experiment_id])
    children = [r for r in runs if "mlflow.parentRunId" in r.data.tags]
    assert [r.info.status for r in runs if r not in children] == ["FINISHED"]
    results = read_results(run / "results.parquet")
    assert sorted(r.data.tags["faar_ray.trial_id"] for r in children) == sorted(r.trial_id for r in results)
    for result in results:
        (child,) = [r for r in children if r.data.tags["faar_ray.trial_id"] == result.trial_id]
        assert (child.info.run_id, child.info.status) == (result.run_id, STATUS[result.state])
        assert set(child.data.params) == set(result.params)
        assert {"config.yaml", "rank_trace.parquet", "rank_trace.png"} <= {
            entry.path for entry in client.list_artifacts(child.info.run_id)
        }
        for metric in (key for key in result.metrics if key.startswith("test/")):
            assert len(client.get_metric_history(child.info.run_id, metric_name(metric))) == 1
        written = list(read_epochs(TrialPaths(run, result.trial_id)).items())[: result.epochs]
        for metric in written[0][1].keys() - {WRITE_MS}:  # measured after the file is written
            points = client.get_metric_history(child.info.run_id, metric_name(metric))
            assert [p.value for p in points] == [pytest.approx(m[metric]) for _, m in written], metric
            assert [p.step for p in points] == list(range(result.epochs)), metric


def lock(database: Path, seconds: float) -> subprocess.Popen[bytes]:
    """Another process holds the database exclusively."""
    code = (
        "import sqlite3, sys, time; c = sqlite3.connect(sys.argv[1], isolation_level=None, timeout=60); "
        "c.execute('BEGIN EXCLUSIVE'); time.sleep(float(sys.argv[2]))"
    )
    return subprocess.Popen([sys.executable, "-c", code, str(database), str(seconds)])


def test_a_locked_database_costs_no_time_and_no_value(folder: Path) -> None:
    names = ("beside", "locked")  # the same search twice at the same time, with a database each
    beside = start(folder, "beside", f"tracking.uri=sqlite:///{folder}/beside.db")
    process = start(folder, "locked")
    wait_for(beside, folder, "beside", 2)
    wait_for(process, folder, "locked", 2)
    before = [journalled_epochs(folder, name) for name in names]
    assert lock(folder / "mlflow.db", LOCK_S).wait(120) == 0
    undisturbed, locked = (journalled_epochs(folder, name) - was for name, was in zip(names, before, strict=True))
    output = ended(process)
    assert "MLflow is unavailable (database is locked)" in output
    assert "MLflow is available again after" in output
    is_whole(folder, "locked", f"sqlite:///{folder}/mlflow.db")
    ended(beside)
    is_whole(folder, "beside", f"sqlite:///{folder}/beside.db")
    print(f"epochs meanwhile: {undisturbed} undisturbed, {locked} locked")
    assert locked > undisturbed / 1.5


@pytest.mark.nightly
def test_a_database_folder_that_was_moved_for_a_while_is_completed(folder: Path) -> None:
    (folder / "db").mkdir()
    uri = f"sqlite:///{folder}/db/mlflow.db"
    process = start(folder, "moved", f"tracking.uri={uri}")
    wait_for(process, folder, "moved", 2)
    (folder / "db").rename(folder / "unplugged")
    wait_for(process, folder, "moved", 14)
    assert not (folder / "db").exists()
    (folder / "unplugged").rename(folder / "db")
    assert "MLflow is available again" in ended(process)
    is_whole(folder, "moved", uri)


@contextmanager
def server(folder: Path, port: int) -> Iterator[subprocess.Popen[bytes]]:
    """A real tracking server in a folder; killed with -9 at the end."""
    folder.mkdir(exist_ok=True)
    command = [sys.executable, "-m", "mlflow", "server", "--port", str(port), "--workers", "1"]
    quiet: dict[str, Any] = {"stdout": subprocess.DEVNULL, "stderr": subprocess.DEVNULL, "start_new_session": True}
    process = subprocess.Popen([*command, "--backend-store-uri", "sqlite:///mlflow.db"], cwd=folder, **quiet)
    try:
        wait_until_healthy(f"http://127.0.0.1:{port}")
        yield process
    finally:
        os.killpg(process.pid, 9)
        process.wait(30)


@pytest.fixture
def port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


def test_a_server_killed_in_the_middle_and_started_again_lacks_nothing(folder: Path, port: int) -> None:
    uri = f"http://127.0.0.1:{port}"
    with server(folder / "server", port):
        process = start(folder, "served", f"tracking.uri={uri}", timeout_s=600)  # however long a server takes to start
        wait_for(process, folder, "served", 3)
    wait_for(process, folder, "served", 14)
    with server(folder / "server", port):
        output = ended(process)
        assert "MLflow is unavailable (Connection refused)" in output
        assert "MLflow is available again" in output
        is_whole(folder, "served", uri)


@pytest.mark.nightly
def test_a_server_that_stays_dead_is_waited_for_reported_and_completed_by_resume(folder: Path, port: int) -> None:
    uri = f"http://127.0.0.1:{port}"
    with server(folder / "dead", port):
        process = start(folder, "dead", f"tracking.uri={uri}")
        wait_for(process, folder, "dead", 3)
    output = ended(process)
    assert f"trying for up to {TIMEOUT_S} s" in output
    assert "MLflow is still unavailable and lacks" in output
    assert "--name dead --resume" in output
    assert len(read_results(folder / "runs" / "dead" / "results.parquet")) == 8
    assert (folder / "runs" / "dead" / "report" / "index.html").is_file()
    refused = start(folder, "dead", f"tracking.uri={uri}", "--resume")
    output, _ = refused.communicate(timeout=120)
    assert (refused.returncode, "MLflow cannot use" in output) == (2, True), output
    with server(folder / "dead", port):
        assert "completed from the disk" in ended(start(folder, "dead", f"tracking.uri={uri}", "--resume"))
        is_whole(folder, "dead", uri)
        again = ended(start(folder, "dead", f"tracking.uri={uri}", "--resume"))
        assert "completed from the disk" not in again
        is_whole(folder, "dead", uri)
