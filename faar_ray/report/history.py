"""Metrics by epoch and the environment, read from MLflow; a report works without them."""

from __future__ import annotations

import json
import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

os.environ.setdefault("MLFLOW_DISABLE_TELEMETRY", "true")  # both are read when mlflow is imported
os.environ.setdefault("MLFLOW_ENABLE_ARTIFACTS_PROGRESS_BAR", "false")

from mlflow import MlflowClient

from faar_ray.records import TrialResult
from faar_ray.tracking.mlflow.store import SQLITE, quiet, root_cause

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
    if _is_missing(uri):
        return History(missing=f"{_database(uri).name} does not exist")
    try:
        with quiet():
            client = MlflowClient(uri)
            curves = {r.trial_id: _curve(client, r.run_id, metric) for r in results if r.run_id}
            return History({trial: curve for trial, curve in curves.items() if curve}, _environment(client, parent))
    except Exception as fault:  # of a server, a database, a driver that is not installed
        return History(missing=root_cause(fault))


def log_report(uri: str, parent: str, folder: Path) -> str:
    """Log a report's folder to the parent run, as `report/`; gives the reason if that fails, else ""."""
    if _is_missing(uri):
        return f"{_database(uri).name} does not exist"
    try:
        with quiet():
            MlflowClient(uri).log_artifacts(parent, str(folder), "report")
    except Exception as fault:
        return root_cause(fault)
    return ""


def _database(uri: str) -> Path:
    return Path(uri.removeprefix(SQLITE).partition("?")[0])


def _is_missing(uri: str) -> bool:
    """Whether a sqlite database is missing; MLflow would make an empty one."""
    return uri.startswith(SQLITE) and not _database(uri).is_file()


def _curve(client: MlflowClient, run: str, metric: str) -> MetricCurve:
    return sorted({m.step: m.value for m in client.get_metric_history(run, metric)}.items())


def _environment(client: MlflowClient, parent: str) -> dict[str, Any]:
    if not any(f.path == "environment.json" for f in client.list_artifacts(parent)):
        return {}
    with TemporaryDirectory() as folder:
        text = Path(client.download_artifacts(parent, "environment.json", folder)).read_text(encoding="utf-8")
    return dict(json.loads(text))
