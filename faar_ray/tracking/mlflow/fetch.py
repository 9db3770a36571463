"""Artifacts of MLflow runs, back onto the disk."""

from __future__ import annotations

import tempfile
from pathlib import Path

from mlflow.exceptions import MlflowException
from mlflow.tracking import MlflowClient

from faar_ray.errors import ConfigError
from faar_ray.tracking.mlflow.store import SQLITE, absolute_uri, hushed


def fetch_artifact(uri: str, run_id: str, name: str) -> Path:
    """A run's artifact as a file of this machine.

    Raises:
        ConfigError: no such database, run or artifact.
    """
    uri = absolute_uri(uri)
    if uri.startswith(SQLITE) and not Path(uri.removeprefix(SQLITE).partition("?")[0]).is_file():
        raise ConfigError(f"--tracking-uri: there is no {uri}, so MLflow run {run_id} is not known")
    with hushed():
        try:
            client = MlflowClient(uri)
            return Path(client.download_artifacts(run_id, name, tempfile.mkdtemp(prefix="faar_ray_")))
        except (MlflowException, OSError) as fault:
            raise ConfigError(f"MLflow run {run_id}: has no artifact {name} ({str(fault).splitlines()[0]})") from fault
