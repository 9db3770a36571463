"""MLflow's database is made once, however many processes open it at the same time."""

from __future__ import annotations

from multiprocessing import get_context
from pathlib import Path
from typing import Any

import pytest

from faar_ray.errors import ConfigError
from faar_ray.tracking.mlflow.runs import KnownRun
from faar_ray.tracking.mlflow.writer import Tracker

PROCESSES = 8


def open_together(folder: str, barrier: Any, number: int, experiments: Any) -> None:
    """Open the database when all processes have come as far."""
    barrier.wait(120)
    tracker = Tracker(f"sqlite:///{folder}/new/mlflow.db", "rho")
    experiments.put((number, tracker.experiment_id, tracker.start_search(f"run{number}", "name: rho\n", {})))


@pytest.mark.timeout(300)
def test_eight_processes_that_open_a_new_database_at_once_all_get_it_and_one_experiment(tmp_path: Path) -> None:
    context = get_context("forkserver")
    context.set_forkserver_preload(["faar_ray.tracking.mlflow.writer"])  # or each would import MLflow for seconds
    barrier, experiments = context.Barrier(PROCESSES), context.Queue()
    workers = [
        context.Process(target=open_together, args=(str(tmp_path), barrier, number, experiments))
        for number in range(PROCESSES)
    ]
    for worker in workers:
        worker.start()
    for worker in workers:
        worker.join(240)
    assert [worker.exitcode for worker in workers] == [0] * PROCESSES
    opened = [experiments.get(timeout=10) for _ in workers]
    assert {number for number, _, _ in opened} == set(range(PROCESSES))
    assert len({experiment for _, experiment, _ in opened}) == 1
    assert len({run for _, _, run in opened}) == PROCESSES


def test_a_folder_that_cannot_be_made_is_named(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(ConfigError, match=r"tracking\.uri: .*file/deeper cannot be created"):
        Tracker(f"sqlite:///{tmp_path}/file/deeper/mlflow.db", "rho")


def test_a_database_without_the_run_of_a_folder_is_refused_while_its_own_is_there(
    tmp_path: Path, local_tracker: Tracker
) -> None:
    known = KnownRun(local_tracker.parent, "", local_tracker.uri)
    other = f"sqlite:///{tmp_path}/mlflow.db"
    with pytest.raises(ConfigError, match=r"does not have the MLflow run of this folder, and sqlite.* is still there"):
        Tracker(other, "rho", known)
    assert not (tmp_path / "mlflow.db").exists()
    (tmp_path / "db" / "mlflow.db").rename(tmp_path / "mlflow.db")
    assert Tracker(other, "rho", known).known_run == local_tracker.parent
