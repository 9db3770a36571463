"""The single writer of MLflow: one parent run per search, one child per trial; only the driver process holds one.

Runs are addressed by id through `MlflowClient`; MLflow's global "active run" is never used. A local database keeps its
artifacts in `mlartifacts/` beside it, so that a plain `mlflow ui` in that folder shows everything.

Every write may be repeated: what MLflow has already (an answer may have been lost) is not written twice.
"""

from __future__ import annotations

import errno
import logging
import math
import os
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any, Literal, TypeVar

import pyarrow as pa
import yaml
from mlflow import MlflowClient
from mlflow.entities import Metric, Param, Run, RunTag
from mlflow.exceptions import MlflowException

from faar_ray.config.trial import TrialConfig, config_id
from faar_ray.errors import ConfigError
from faar_ray.records import Role, State, TrialResult
from faar_ray.tracking.mlflow.environment import environment
from faar_ray.tracking.mlflow.mlflow_faults import is_gone, needed
from faar_ray.tracking.mlflow.store import (
    absolute_uri,
    artifact_location,
    database_file,
    hushed,
    metric_name,
)

T = TypeVar("T")
PARENT_TAG = "mlflow.parentRunId"
STATUS: dict[State, str] = {"COMPLETE": "FINISHED", "PRUNED": "KILLED", "FAIL": "FAILED", "RUNNING": "RUNNING"}
EXPERIMENT_TAGS = {"mlflow.experimentKind": "custom_model_development"}  # the UI opens on runs, not on GenAI traces
METRICS_PER_BATCH, PARAMS_PER_BATCH = 1000, 100  # MLflow's limits
LONGEST_PARAM, LONGEST_TAG = 6000, 5000
logging.getLogger("mlflow.store.db.utils").setLevel(logging.CRITICAL)  # prints a stack for what it raises as well


@dataclass(frozen=True, slots=True)
class Child:
    """A trial's run, as one search of MLflow gives it."""

    run_id: str
    status: str
    tags: Mapping[str, str]
    metrics: frozenset[str]

    def holds(self, result: TrialResult) -> bool:
        """Whether the run was closed with all that the result tells."""
        told = (self.status, self.tags.get("faar_ray.state"), self.tags.get("faar_ray.epochs"))
        names = {metric_name(name) for name, value in result.metrics.items() if math.isfinite(value)}
        return told == (STATUS[result.state], result.state, str(result.epochs)) and names <= self.metrics


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
        self._logged: dict[str, set[tuple[str, int]]] = {}
        """run id -> (metric, step) pairs that it has; asked of MLflow where not known."""
        self._unsure: set[str] = set()
        """Trial ids whose run may exist although making it failed."""
        self._file: Path | None = None
        if (file := database_file(self.uri)) is not None:  # no connection outlives a database that comes and goes
            os.environ.setdefault("MLFLOW_SQLALCHEMYSTORE_POOLCLASS", "NullPool")
        with hushed(), needed(self.uri):
            self._mlflow = MlflowClient(self.uri)
            self.experiment_id = self._experiment(experiment)
        self._file = file

    @property
    def _client(self) -> MlflowClient:
        """MLflow's own client.

        Raises:
            FileNotFoundError: the sqlite file is away; sqlite would make an empty one in its place.
        """
        if self._file is not None and not self._file.exists():
            raise FileNotFoundError(errno.ENOENT, os.strerror(errno.ENOENT), str(self._file))
        return self._mlflow

    def start_search(self, name: str, space_yaml: str, tags: Mapping[str, str], *, seed: int | None = None) -> str:
        """Open the parent run with its search space and environment; give its run id."""
        run = self._create(name, {"faar_ray.role": "search", "faar_ray.name": name, **tags})
        self.parent = run
        self._client.log_text(run, space_yaml, "space.yaml")
        self._client.log_dict(run, environment(seed), "environment.json")
        return run

    def resume_search(self, run_id: str) -> bool:
        """Go on with a parent run: its status is RUNNING again; False where MLflow does not know it (any more)."""
        found = self._reopen(run_id)
        self.parent = run_id if found else ""
        return found

    def start_trial(
        self, trial_id: str, config: TrialConfig, params: Mapping[str, Any], role: Role, run_id: str | None = None
    ) -> str:
        """Open a child run, or go on with `run_id` (its logged epochs stay); give its run id.

        Args:
            trial_id: becomes the run's name.
            config: kept whole, as the artifact `config.yaml`.
            params: the searched keys only, so that parallel coordinates stay readable.
            role: tag `faar_ray.role`.
            run_id: of the run to continue; one that MLflow does not know any more is made anew.
        """
        run = run_id if run_id is not None and self._reopen(run_id) else self._child(trial_id, config, role)
        pairs = [Param(metric_name(key), str(value)[:LONGEST_PARAM]) for key, value in params.items()]
        for chunk in _chunks(pairs, PARAMS_PER_BATCH):
            self._client.log_batch(run, params=chunk)
        self._client.log_text(run, yaml.safe_dump(config.model_dump(mode="json"), sort_keys=False), "config.yaml")
        return run

    def _child(self, trial_id: str, config: TrialConfig, role: Role) -> str:
        if trial_id in self._unsure and (run := self.runs_of(self.parent).get(trial_id)) is not None:
            return run
        tags = {
            "faar_ray.role": role,
            "faar_ray.trial_id": trial_id,
            "faar_ray.config_id": config_id(config),
            "faar_ray.seed": str(config.seed),
        }
        if self.parent:
            self._unsure.add(trial_id)
            tags[PARENT_TAG] = self.parent
        run = self._create(trial_id, tags)
        self._unsure.discard(trial_id)
        self._logged[run] = set()
        return run

    def log_epoch(self, run_id: str, epoch: int, metrics: Mapping[str, float], at: float | None = None) -> None:
        """Log one epoch (step = epoch) in one batch; what the run already has of it is skipped.

        Args:
            run_id: the child.
            epoch: 0-based.
            metrics: its values; those that are not finite are left out.
            at: Unix time when it ended; now by default.
        """
        self._log(run_id, epoch, metrics, at)

    def log_rank_trace(self, run_id: str, trace: Path, title: str) -> None:
        """Log a trace file as `rank_trace.parquet` and its heat map as `rank_trace.png` (none without rows)."""
        from faar_ray.tracking.files.rank_trace import read_rank_trace
        from faar_ray.tracking.plots.rank_plot import plot_rank_trace  # matplotlib is wanted here only

        self._log_trace(run_id, trace, "rank_trace", read_rank_trace(trace), partial(plot_rank_trace, title=title))

    def log_sine_trace(self, run_id: str, trace: Path, title: str) -> None:
        """Log a trace file as `sinewich_trace.parquet` and its picture as `sinewich_trace.png`."""
        from faar_ray.tracking.files.sine_trace import read_sine_trace
        from faar_ray.tracking.plots.sine_plot import plot_sine_trace

        self._log_trace(run_id, trace, "sinewich_trace", read_sine_trace(trace), partial(plot_sine_trace, title=title))

    def _log_trace(self, run_id: str, trace: Path, name: str, table: pa.Table, plot: Callable[..., None]) -> None:
        with TemporaryDirectory() as folder:
            named, picture = Path(folder) / f"{name}.parquet", Path(folder) / f"{name}.png"
            named.write_bytes(trace.read_bytes())
            self._client.log_artifact(run_id, str(named))
            if table.num_rows:
                plot(table, picture)
                self._client.log_artifact(run_id, str(picture))

    def tag(self, run_id: str, tags: Mapping[str, str]) -> None:
        """Set tags of a run."""
        self._client.log_batch(run_id, tags=[RunTag(key, value[:LONGEST_TAG]) for key, value in tags.items()])

    def log_final(self, run_id: str, metrics: Mapping[str, float]) -> None:
        """Log metrics (`test/...`) at the last epoch's step, those that the run lacks; its state stays."""
        if run_id not in self._logged:  # one call instead of one per metric
            held = self._client.get_run(run_id).data.metrics
            metrics = {name: value for name, value in metrics.items() if metric_name(name) not in held}
        if metrics:
            self._log(run_id, max(0, self._last_step(run_id)), metrics)

    def end_trial(
        self,
        run_id: str,
        state: State,
        *,
        metrics: Mapping[str, float] | None = None,
        artifacts: Sequence[Path] = (),
        reason: str = "",
        epochs: int | None = None,
    ) -> None:
        """Close a child run: COMPLETE -> FINISHED, PRUNED -> KILLED, FAIL -> FAILED.

        Args:
            run_id: the child.
            state: how it ended; also the tag `faar_ray.state`.
            metrics: final ones (`test/...`), logged at the last epoch's step.
            artifacts: files, logged under their own names; those that do not exist are left out.
            reason: why it was stopped or failed; the tag `faar_ray.reason`.
            epochs: how many it finished, all of which are logged; the tag `faar_ray.epochs`.
        """
        if state == "RUNNING":
            raise ValueError("a trial cannot end RUNNING")
        self.log_final(run_id, metrics or {})
        for path in artifacts:
            if path.is_file():
                self._client.log_artifact(run_id, str(path))
        self._close(run_id, state, reason, {} if epochs is None else {"faar_ray.epochs": str(epochs)})

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

    def children(self, parent: str) -> dict[str, Child]:
        """Child runs of a parent by trial id, and what MLflow holds of each."""
        return {
            run.data.tags["faar_ray.trial_id"]: Child(
                run.info.run_id, run.info.status, run.data.tags, frozenset(run.data.metrics)
            )
            for run in self._children(parent)
        }

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

    def _reopen(self, run_id: str) -> bool:
        """Make a run RUNNING again, without why it was stopped; False where MLflow does not know it."""
        if not self._known_to_mlflow(self._client.update_run, run_id, "RUNNING"):
            return False
        self._known_to_mlflow(self._client.delete_tag, run_id, "faar_ray.reason")
        return True

    @staticmethod
    def _known_to_mlflow(call: Callable[[str, str], object], run_id: str, value: str) -> bool:
        try:
            call(run_id, value)
        except MlflowException as fault:
            if not is_gone(fault):
                raise
            return False
        return True

    def _close(self, run_id: str, state: State, reason: str, more: Mapping[str, str] | None = None) -> None:
        told = {"faar_ray.state": state, **(more or {})} | ({"faar_ray.reason": reason} if reason else {})
        self.tag(run_id, told)
        self._client.set_terminated(run_id, STATUS[state])

    def _log(self, run_id: str, step: int, metrics: Mapping[str, float], at: float | None = None) -> None:
        when, known = int(1000 * (at or time.time())), self._known(run_id)
        rows = [Metric(metric_name(k), float(v), when, step) for k, v in metrics.items() if math.isfinite(v)]
        rows = [row for row in rows if (row.key, step) not in known]
        try:
            for chunk in _chunks(rows, METRICS_PER_BATCH):
                self._client.log_batch(run_id, metrics=chunk)
                known.update((row.key, step) for row in chunk)
        except BaseException:  # it may be written although its answer was lost
            self._logged.pop(run_id, None)
            raise

    def _known(self, run_id: str) -> set[tuple[str, int]]:
        """What a run has; asked of MLflow once, then remembered."""
        if run_id not in self._logged:
            names = self._client.get_run(run_id).data.metrics
            history = (self._client.get_metric_history(run_id, name) for name in names)
            self._logged[run_id] = {(metric.key, metric.step) for points in history for metric in points}
        return self._logged[run_id]

    def _last_step(self, run_id: str) -> int:
        """Last epoch of a run, -1 for none."""
        return max((step for _, step in self._known(run_id)), default=-1)

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
