"""Where an experiment's artifacts lie: MLflow stores absolute paths, which are wrong after a folder was moved.

In a local database they are corrected where the artifacts are found beside it. Elsewhere (the database is a server's)
nothing is written to a folder that has gone, since MLflow would make it anew.
"""

from __future__ import annotations

import sqlite3
from collections.abc import Callable
from contextlib import closing
from pathlib import Path

from mlflow import MlflowClient
from mlflow.utils.file_utils import get_local_path_or_none

from faar_ray.tracking.mlflow.store import database_file

LOCK_S = 20.0


def find_artifacts(
    client: MlflowClient, uri: str, experiment_id: str, run_id: str, notify: Callable[[str], None]
) -> str:
    """Correct an experiment's artifact folder if it was moved with its database.

    Args:
        client: of the store.
        uri: of the store, made absolute.
        experiment_id: of an experiment that existed before.
        run_id: one of its runs that has artifacts; "" for none.
        notify: is told of a correction.

    Returns:
        Why artifacts cannot be logged, "" where they can.
    """
    location = str(client.get_experiment(experiment_id).artifact_location)
    folder, database = local_folder(location), database_file(uri)
    if folder is None:  # a bucket, or the server's own
        return ""
    if database is not None and (moved := moved_folder(folder, database, run_id)) is not None:
        _correct(database, experiment_id, location, moved.as_uri() if location.startswith("file:") else str(moved))
        notify(f"MLflow's artifacts are in {moved} now, no longer in {folder}; corrected in {database}")
        return ""
    return gone(folder, database, run_id)


def gone(folder: Path, database: Path | None, run_id: str) -> str:
    """Why nothing may be written to an experiment's artifact folder, "" where it may."""
    if database is not None and folder == beside(folder, database):
        return ""
    is_lost = not (folder / run_id).is_dir() if run_id else database is not None and not folder.parents[1].is_dir()
    if not is_lost:
        return ""
    return (
        f"MLflow expects this experiment's artifacts in {folder}, which is gone: none are logged until it is back "
        "(moved together with a sqlite database? --resume once with tracking.uri=sqlite:///FILE corrects it)"
    )


def local_folder(location: str) -> Path | None:
    """A folder of this machine; None for anything else."""
    path = get_local_path_or_none(location)
    return None if path is None else Path(path)


def beside(folder: Path, database: Path) -> Path:
    """`mlartifacts/NAME` or `mlruns/ID` beside a database, as an experiment's folder is called where it is."""
    return database.parent.joinpath(*folder.parts[-2:])


def moved_folder(folder: Path, database: Path, run_id: str) -> Path | None:
    """The experiment's folder beside the database, if it is there and the stored one is another."""
    here = beside(folder, database)
    if here == folder or not here.is_dir() or (folder.is_dir() and here.samefile(folder)):
        return None
    return here if (run_id and (here / run_id).is_dir()) or not folder.is_dir() else None


def _correct(database: Path, experiment_id: str, old: str, new: str) -> None:
    with closing(sqlite3.connect(database, timeout=LOCK_S)) as connection, connection:
        connection.execute(
            "UPDATE experiments SET artifact_location = ? WHERE experiment_id = ?", (new, int(experiment_id))
        )
        connection.execute(
            "UPDATE runs SET artifact_uri = ? || substr(artifact_uri, ?) "
            "WHERE experiment_id = ? AND substr(artifact_uri, 1, ?) = ?",
            (new, len(old) + 1, int(experiment_id), len(old) + 1, f"{old}/"),
        )
