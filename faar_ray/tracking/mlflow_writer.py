"""The single writer of MLflow: one parent run per search, one child per trial; only the driver process holds one.

Runs are addressed by id through `MlflowClient`; MLflow's global "active run" is never used. A local database keeps its
artifacts in `mlartifacts/` beside it, so that a plain `mlflow ui` in that folder shows everything.
"""

from __future__ import annotations

import math
import os
import time
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any, Literal, TypeVar

import yaml

os.environ.setdefault("MLFLOW_DISABLE_TELEMETRY", "true")  # both are read when mlflow is imported
os.environ.setdefault("MLFLOW_ENABLE_ARTIFACTS_PROGRESS_BAR", "false")

from mlflow import MlflowClient
from mlflow.entities import Metric, Param, Run, RunTag
from mlflow.exceptions import MlflowException
from sqlalchemy.exc import SQLAlchemyError

from faar_ray.config import TrialConfig, config_id
from faar_ray.errors import ConfigError
from faar_ray.records import Role, State
from faar_ray.tracking.environment import environment
from faar_ray.tracking.mlflow_store import absolute_uri, artifact_location, hushed, metric_name

T = TypeVar("T")
PARENT_TAG = "mlflow.parentRunId"
STATUS: dict[State, str] = {"COMPLETE": "FINISHED", "PRUNED": "KILLED", "FAIL": "FAILED", "RUNNING": "RUNNING"}
EXPERIMENT_TAGS = {"mlflow.experimentKind": "custom_model_development"}  # the UI opens on runs, not on GenAI traces
METRICS_PER_BATCH, PARAMS_PER_BATCH = 1000, 100  # MLflow's limits
LONGEST_PARAM, LONGEST_TAG = 6000, 5000


class Tracker:
    """Writes one search into one MLflow experiment.

    Args:
        uri: an MLflow tracking URI; `sqlite:///mlflow.db` is relative to the working directory, now.
        experiment: its name; made when missing.

    Raises:
        ConfigError: no database or server is behind `uri`, or the experiment was deleted.
    """

    def __init__(self, uri: str, experiment: str) -> None:
        self.uri = absolute_uri(uri)
        self.parent = ""
        self._last_epoch: dict[str, int] = {}
        with hushed():
            try:
                self._client = MlflowClient(self.uri)
                self.experiment_id = self._experiment(experiment)
            except MlflowException as fault:
                raise ConfigError(f"tracking.uri: MLflow cannot use {self.uri!r}: {fault.message}") from fault
            except SQLAlchemyError as fault:
                cause = getattr(fault, "orig", None) or fault
                raise ConfigError(f"tracking.uri: MLflow cannot use {self.uri!r}: {cause}") from fault

    def start_search(self, name: str, space_yaml: str, tags: Mapping[str, str], *, seed: int | None = None) -> str:
        """Open the parent run with its search space and environment; give its run id."""
        run = self._create(name, {"faar_ray.role": "search", "faar_ray.name": name, **tags})
        self.parent = run
        self._client.log_text(run, space_yaml, "space.yaml")
        self._client.log_dict(run, environment(seed), "environment.json")
        return run

    def resume_search(self, run_id: str) -> None:
        """Go on with a parent run: its status is RUNNING again."""
        self._reopen(run_id)
        self.parent = run_id

    def start_trial(
        self, trial_id: str, config: TrialConfig, params: Mapping[str, Any], role: Role, run_id: str | None = None
    ) -> str:
        """Open a child run, or go on with `run_id` (its logged epochs stay); give its run id.

        Args:
            trial_id: becomes the run's name.
            config: kept whole, as the artifact `config.yaml`.
            params: the searched keys only, so that parallel coordinates stay readable.
            role: tag `faar_ray.role`.
            run_id: of the run to continue.
        """
        if run_id is not None:
            self._reopen(run_id)
            return run_id
        tags = {
            "faar_ray.role": role,
            "faar_ray.trial_id": trial_id,
            "faar_ray.config_id": config_id(config),
            "faar_ray.seed": str(config.seed),
        }
        run = self._create(trial_id, tags | {PARENT_TAG: self.parent} if self.parent else tags)
        pairs = [Param(metric_name(key), str(value)[:LONGEST_PARAM]) for key, value in params.items()]
        for chunk in _chunks(pairs, PARAMS_PER_BATCH):
            self._client.log_batch(run, params=chunk)
        self._client.log_text(run, yaml.safe_dump(config.model_dump(mode="json"), sort_keys=False), "config.yaml")
        return run

    def log_epoch(self, run_id: str, epoch: int, metrics: Mapping[str, float]) -> None:
        """Log one epoch (step = epoch) in one batch; an epoch that the run already has is skipped."""
        if epoch <= self._last_logged(run_id):
            return
        self._log(run_id, epoch, metrics)
        self._last_epoch[run_id] = epoch

    def log_rank_trace(self, run_id: str, trace: Path, title: str) -> None:
        """Log a trace file as `rank_trace.parquet` and its heat map as `rank_trace.png` (none without rows)."""
        from faar_ray.tracking.rank_plot import plot_rank_trace  # matplotlib is wanted here only
        from faar_ray.tracking.rank_trace import read_rank_trace

        table = read_rank_trace(trace)
        with TemporaryDirectory() as folder:
            named = Path(folder) / "rank_trace.parquet"
            named.write_bytes(trace.read_bytes())
            self._client.log_artifact(run_id, str(named))
            if table.num_rows:
                picture = Path(folder) / "rank_trace.png"
                plot_rank_trace(table, picture, title)
                self._client.log_artifact(run_id, str(picture))

    def tag(self, run_id: str, tags: Mapping[str, str]) -> None:
        """Set tags of a run."""
        self._client.log_batch(run_id, tags=[RunTag(key, value[:LONGEST_TAG]) for key, value in tags.items()])

    def log_final(self, run_id: str, metrics: Mapping[str, float]) -> None:
        """Log metrics (`test/...`) at the last epoch's step; the run's state stays."""
        self._log(run_id, max(0, self._last_logged(run_id)), metrics)

    def end_trial(
        self,
        run_id: str,
        state: State,
        *,
        metrics: Mapping[str, float] | None = None,
        artifacts: Sequence[Path] = (),
        reason: str = "",
    ) -> None:
        """Close a child run: COMPLETE -> FINISHED, PRUNED -> KILLED, FAIL -> FAILED.

        Args:
            run_id: the child.
            state: how it ended; also the tag `faar_ray.state`.
            metrics: final ones (`test/...`), logged at the last epoch's step.
            artifacts: files, logged under their own names; those that do not exist are left out.
            reason: why it was stopped or failed; the tag `faar_ray.reason`.
        """
        if state == "RUNNING":
            raise ValueError("a trial cannot end RUNNING")
        self._log(run_id, max(0, self._last_logged(run_id)), metrics or {})
        for path in artifacts:
            if path.is_file():
                self._client.log_artifact(run_id, str(path))
        self._close(run_id, state, reason)

    def end_search(
        self,
        state: Literal["FINISHED", "FAILED", "KILLED"],
        artifacts: Path | None = None,
        *,
        run_id: str | None = None,
    ) -> None:
        """Close the parent run; `artifacts` is a folder (the report) that is logged under its own name."""
        run = run_id or self.parent
        if artifacts is not None and artifacts.is_dir():
            self._client.log_artifacts(run, str(artifacts), artifacts.name)
        self._client.set_terminated(run, state)

    def runs_of(self, parent: str) -> dict[str, str]:
        """Child runs of a parent, `{trial_id: run_id}`; the newest where a trial has several."""
        return {run.data.tags["faar_ray.trial_id"]: run.info.run_id for run in self._children(parent)}

    def running(self, parent: str) -> set[str]:
        """Trial ids of children whose run is open."""
        return {run.data.tags["faar_ray.trial_id"] for run in self._children(parent) if run.info.status == "RUNNING"}

    def close_running(self, parent: str, state: State, reason: str = "the search ended") -> list[str]:
        """Close children that were left RUNNING (a killed driver); give their trial ids."""
        left = [run for run in self._children(parent) if run.info.status == "RUNNING"]
        for run in left:
            self._close(run.info.run_id, state, reason)
        return [run.data.tags["faar_ray.trial_id"] for run in left]

    def _experiment(self, name: str) -> str:
        known = self._client.get_experiment_by_name(name)
        if known is None:
            return str(self._client.create_experiment(name, artifact_location(self.uri, name), EXPERIMENT_TAGS))
        if known.lifecycle_stage != "active":
            raise ConfigError(
                f"tracking.experiment: {name!r} was deleted in MLflow: `mlflow gc` removes it for good, "
                f"`mlflow experiments restore -x {known.experiment_id}` brings it back; or use another name"
            )
        return str(known.experiment_id)

    def _create(self, name: str, tags: Mapping[str, str]) -> str:
        with hushed():
            short = {key: str(value)[:LONGEST_TAG] for key, value in tags.items()}
            return str(self._client.create_run(self.experiment_id, tags=short, run_name=name).info.run_id)

    def _reopen(self, run_id: str) -> None:
        self._client.update_run(run_id, status="RUNNING")

    def _close(self, run_id: str, state: State, reason: str) -> None:
        tags = [RunTag("faar_ray.state", state)]
        if reason:
            tags.append(RunTag("faar_ray.reason", reason[:LONGEST_TAG]))
        self._client.log_batch(run_id, tags=tags)
        self._client.set_terminated(run_id, STATUS[state])

    def _log(self, run_id: str, step: int, metrics: Mapping[str, float]) -> None:
        now = int(time.time() * 1000)
        rows = [Metric(metric_name(k), float(v), now, step) for k, v in metrics.items() if math.isfinite(v)]
        for chunk in _chunks(rows, METRICS_PER_BATCH):
            self._client.log_batch(run_id, metrics=chunk)

    def _last_logged(self, run_id: str) -> int:
        """Last epoch of a run, -1 for none; asked of the database once, then remembered."""
        if run_id not in self._last_epoch:
            names = self._client.get_run(run_id).data.metrics
            steps = (m.step for name in names for m in self._client.get_metric_history(run_id, name))
            self._last_epoch[run_id] = max(steps, default=-1)
        return self._last_epoch[run_id]

    def _children(self, parent: str) -> Iterator[Run]:
        """Child runs, oldest first."""
        token: str | None = None
        while token != "":
            page = self._client.search_runs(
                [self.experiment_id],
                f"tags.`{PARENT_TAG}` = '{parent}'",
                order_by=["attributes.start_time"],
                page_token=token,
            )
            yield from page
            token = page.token or ""


def _chunks(rows: Sequence[T], size: int) -> Iterator[Sequence[T]]:
    for start in range(0, len(rows), size):
        yield rows[start : start + size]


def open_runs(uri: str) -> list[str]:
    """Names of all runs that a database or server holds as RUNNING."""
    with hushed():
        client = MlflowClient(uri)
        ids = [experiment.experiment_id for experiment in client.search_experiments()]
        return [run.info.run_name for run in client.search_runs(ids, "attributes.status = 'RUNNING'")]
