"""Opens MLflow's store: its tables are made once, and a folder's run is found by its ids, whatever was moved since."""

from __future__ import annotations

import hashlib
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from filelock import FileLock
from mlflow import MlflowClient
from mlflow.entities import Experiment, Run
from mlflow.exceptions import MlflowException

from faar_ray.config.paths import default_cache_dir
from faar_ray.config.secrets import is_server
from faar_ray.errors import ConfigError
from faar_ray.tracking.mlflow import store
from faar_ray.tracking.mlflow.artifact_folder import find_artifacts
from faar_ray.tracking.mlflow.runs import PARENT_TAG, SEARCH_TAG, KnownRun, is_deleted, search_all
from faar_ray.tracking.mlflow.store import artifact_location, config_error_on_failure, database_file, quiet

EXPERIMENT_TAGS = {"mlflow.experimentKind": "custom_model_development"}  # the UI opens on runs, not on GenAI traces
LOCK_TIMEOUT_S = 120.0


@dataclass(frozen=True, slots=True)
class OpenStore:
    """A store with an experiment in it."""

    client: MlflowClient
    experiment_id: str
    run_id: str
    """Of the known run, "" where the store does not have it."""
    orphans: list[Run]
    """Trials of the known run, where it is gone for good."""
    notices: list[str]
    """What was restored, corrected or not found, for the user."""
    artifact_fault: str
    """Why no artifact can be logged, "" where they can."""


def open_store(uri: str, experiment: str, known: KnownRun) -> OpenStore:
    """Open a store with the known run's experiment, or the one of this name; makes what is missing.

    Args:
        uri: made absolute.
        experiment: its name.
        known: run to continue; a deleted one is restored.

    Raises:
        ConfigError: no database or server is behind `uri`, it is not the known run's, or the experiment was deleted.
    """
    if (file := database_file(uri)) is not None and not file.is_file():
        known.check_database(uri, found=False)
        _make_folder(file.parent, known)
    with quiet(), config_error_on_failure(uri), opening_lock(uri):
        client, notices = store.client(uri), list[str]()
        run = known.find(client)
        known.check_database(uri, found=run is not None)

        orphans = _orphans(client, known, notices) if run is None else []
        family = [one for one in (run, *orphans) if one is not None]
        existing = client.get_experiment(family[0].info.experiment_id) if family else None
        existing = existing or client.get_experiment_by_name(experiment)
        experiment_id = _create_experiment(client, uri, experiment) if existing is None else _id_of(existing)

        run_id = "" if run is None else str(run.info.run_id)
        if run is not None and is_deleted(run):
            client.restore_run(run_id)
            notices.append(f"MLflow run {run_id} of this folder had been deleted; it is restored")
        fault = find_artifacts(client, uri, experiment_id, run_id, notices.append) if existing is not None else ""
        return OpenStore(client, experiment_id, run_id, orphans, [*notices, *([fault] if fault else [])], fault)


@contextmanager
def opening_lock(uri: str) -> Iterator[None]:
    """Hold a (made absolute) database while it is opened: two processes must not make its tables at the same time.

    Raises:
        OSError: the lock cannot be had.
    """
    if is_server(uri):  # the server's own database
        yield
        return
    if (file := database_file(uri)) is not None:
        lock = file.with_name(f".{file.name}.lock")
    else:
        lock = default_cache_dir() / "locks" / hashlib.sha256(uri.encode()).hexdigest()[:16]
        lock.parent.mkdir(parents=True, exist_ok=True)
    with FileLock(lock, timeout=LOCK_TIMEOUT_S):
        yield


def _make_folder(folder: Path, known: KnownRun) -> None:
    if known.run_id and not folder.is_dir():
        raise ConfigError(
            f"tracking.uri: there is no folder {folder}, where the MLflow runs of this folder are to be; "
            "if they were moved, give tracking.uri=sqlite:///FILE"
        )
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except OSError as fault:
        raise ConfigError(f"tracking.uri: {folder} cannot be created ({fault.strerror})") from None


def _orphans(client: MlflowClient, known: KnownRun, notices: list[str]) -> list[Run]:
    if not known.run_id:
        return []
    orphans = [
        run for tag in (PARENT_TAG, SEARCH_TAG) for run in search_all(client, f"tags.`{tag}` = '{known.run_id}'")
    ]
    rest = f"{len(orphans)} runs of its trials are kept" if orphans else "or this is another database or server"
    notices.append(f"MLflow has no run {known.run_id} of this folder ({rest}); a new one is made from the disk")
    return orphans


def _create_experiment(client: MlflowClient, uri: str, name: str) -> str:
    try:
        return str(client.create_experiment(name, artifact_location(uri, name), EXPERIMENT_TAGS))
    except MlflowException:
        if (experiment := client.get_experiment_by_name(name)) is None:
            raise
        return _id_of(experiment)  # another process made it at this moment


def _id_of(experiment: Experiment) -> str:
    """The experiment's id.

    Raises:
        ConfigError: it was deleted. It may hold more than this search, so it is not restored unasked.
    """
    if experiment.lifecycle_stage != "active":
        raise ConfigError(
            f"tracking.experiment: {experiment.name!r} was deleted in MLflow: `mlflow gc` removes it for good, "
            f"`mlflow experiments restore -x {experiment.experiment_id}` brings it back; or use another name"
        )
    return str(experiment.experiment_id)
