"""Metrics by epoch and the environment, read from MLflow; a report works without them."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import TYPE_CHECKING, Any

from faar_ray.config.secrets import without_secrets
from faar_ray.records import TrialResult
from faar_ray.tracking.mlflow.artifact_folder import local_folder
from faar_ray.tracking.mlflow.store import client, database_file, quiet, root_cause

if TYPE_CHECKING:
    from mlflow import MlflowClient

MetricCurve = list[tuple[int, float]]
"""(epoch, value), by epoch."""


@dataclass(frozen=True)
class History:
    """Curves by trial id and the environment of the search; `missing` gives the reason where they are absent."""

    curves: Mapping[str, MetricCurve] = field(default_factory=dict)
    environment: Mapping[str, Any] = field(default_factory=dict)
    missing: str = ""


def read_history(uri: str, parent: str, results: Sequence[TrialResult], metric: str) -> History:
    """Read `metric` of every trial that has a run; never fails, `missing` gives the reason."""
    if missing := _missing(uri):
        return History(missing=missing)
    try:
        with quiet():
            mlflow = client(uri)
            curves = {r.trial_id: _curve(mlflow, r.run_id, metric) for r in results if r.run_id}
            return History({trial: curve for trial, curve in curves.items() if curve}, _environment(mlflow, parent))
    except Exception as fault:  # of a server, a database, a driver that is not installed
        return History(missing=without_secrets(root_cause(fault)))


def log_report(uri: str, parent: str, folder: Path) -> str:
    """Log a report's folder to the parent run, as `report/`; gives the reason if that fails, else ""."""
    if missing := _missing(uri):
        return missing
    try:
        with quiet():
            mlflow = client(uri)
            artifacts = local_folder(mlflow.get_run(parent).info.artifact_uri)
            if artifacts is not None and not artifacts.is_dir():  # it would be made anew where nobody looks
                return f"the folder of its artifacts, {artifacts}, is gone"
            mlflow.log_artifacts(parent, str(folder), "report")
    except Exception as fault:
        return without_secrets(root_cause(fault))
    return ""


def _missing(uri: str) -> str:
    """A sentence if a sqlite database is missing, which MLflow would make empty; else ""."""
    file = database_file(uri)
    return "" if file is None or file.is_file() else f"{file.name} does not exist"


def _curve(client: MlflowClient, run: str, metric: str) -> MetricCurve:
    return sorted({m.step: m.value for m in client.get_metric_history(run, metric)}.items())


def _environment(client: MlflowClient, parent: str) -> dict[str, Any]:
    if not any(f.path == "environment.json" for f in client.list_artifacts(parent)):
        return {}
    with TemporaryDirectory() as folder:
        text = Path(client.download_artifacts(parent, "environment.json", folder)).read_text(encoding="utf-8")
    return dict(json.loads(text))
