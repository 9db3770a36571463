"""The single writer of MLflow: one parent run per search, one child per trial; only the driver process holds one.

Runs are addressed by id through `MlflowClient`; MLflow's global "active run" is never used. A local database keeps its
artifacts in `mlartifacts/` beside it, so that a plain `mlflow ui` in that folder shows everything.

Every write may be repeated: what MLflow already has (an answer may have been lost) is not written twice.
"""

from __future__ import annotations

import contextlib
import errno
import json
import logging
import math
import os
import shutil
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any, Literal, TypeVar

import yaml
from mlflow import MlflowClient
from mlflow.entities import Metric, Param, Run, RunTag, ViewType
from mlflow.exceptions import MlflowException

from faar_ray.config.trial import TrialConfig, config_id
from faar_ray.records import Role, State
from faar_ray.tracking.mlflow.environment import environment
from faar_ray.tracking.mlflow.opening import open_store
from faar_ray.tracking.mlflow.runs import (
    DUPLICATE_TAG,
    NOTHING_KNOWN,
    PARENT_TAG,
    PROTOCOL_TAG,
    REASON_TAG,
    SEARCH_TAG,
    STATUS,
    TRIAL_TAG,
    Child,
    KnownRun,
    adopt,
    best_of_each_trial,
    is_deleted,
    restore_deleted,
    run_or_none,
    trials_of,
)
from faar_ray.tracking.mlflow.store import (
    absolute_uri,
    database_file,
    is_unknown_run,
    metric_name,
    quiet,
)

T = TypeVar("T")
SearchStatus = Literal["FINISHED", "FAILED", "KILLED"]
METRICS_PER_BATCH, PARAMS_PER_BATCH = 1000, 100  # MLflow's limits
LONGEST_PARAM, LONGEST_TAG = 6000, 5000
logging.getLogger("mlflow.store.db.utils").setLevel(logging.CRITICAL)  # it prints a stack and raises the same error


class Tracker:
    """Writes one search into one MLflow experiment.

    Args:
        uri: an MLflow tracking URI; `sqlite:///mlflow.db` is relative to the working directory, now.
        experiment: its name; created when missing. Of a known run, its own experiment is used, whatever its name.
        known: run to continue.

    Raises:
        ConfigError: no database or server is behind `uri`, it is not the known run's, or the experiment was deleted.
    """

    def __init__(self, uri: str, experiment: str, known: KnownRun = NOTHING_KNOWN) -> None:
        self.uri = absolute_uri(uri)
        self.parent = ""
        self.runs: dict[str, str] = {}
        """trial id -> run id, of the runs that this tracker created or continued."""
        self._logged: dict[str, set[tuple[str, int]]] = {}
        """run id -> (metric, step) pairs that it has; read from MLflow where not known."""
        self._uncertain: set[str] = set()
        """Trial ids whose run may exist although the call that creates it failed."""
        self._file = database_file(self.uri)
        if self._file is not None:  # no connection outlives a database that is moved
            os.environ.setdefault("MLFLOW_SQLALCHEMYSTORE_POOLCLASS", "NullPool")
        opened = open_store(self.uri, experiment, known)
        self._mlflow, self.experiment_id, self.known_run = opened.client, opened.experiment_id, opened.run_id
        self._orphans = opened.orphans
        self.notices = opened.notices
        """What was restored, corrected or not found at the start."""
        self.artifact_fault = opened.artifact_fault
        """Why no artifact can be logged, "" where they can."""

    @property
    def _client(self) -> MlflowClient:
        """MLflow's own client.

        Raises:
            FileNotFoundError: the sqlite file is missing; sqlite would create an empty one in its place.
        """
        if self._file is not None and not self._file.exists():
            raise FileNotFoundError(errno.ENOENT, os.strerror(errno.ENOENT), str(self._file))
        return self._mlflow

    def start_search(self, name: str, space_yaml: str, tags: Mapping[str, str], *, seed: int | None = None) -> str:
        """Open the parent run with its search space and environment; returns its run id."""
        run = self._create(name, {"faar_ray.role": "search", "faar_ray.name": name, **tags})
        self.parent = run
        try:
            self._adopt_orphans()
            self._log_text(run, space_yaml, "space.yaml")
            self._log_text(run, json.dumps(environment(seed), indent=2), "environment.json")
        except BaseException:  # the search does not start: its run must not stay RUNNING
            with contextlib.suppress(Exception):
                self._client.set_terminated(run, "FAILED")
            raise
        return run

    def resume_search(self, tags: Mapping[str, str] = {}) -> bool:
        """Continue the known parent run: its status is RUNNING again; False where MLflow has no such run (any more).

        Each trial has one run then: deleted ones are restored, and those that were left open beside it are closed.
        """
        if not self.known_run or not self._reopen(self.known_run):
            return False
        self.parent = self.known_run
        if tags:
            self.tag(self.parent, tags)
        self._settle_children(list(trials_of(self._client, self.experiment_id, self.parent, ViewType.ALL)))
        return True

    def start_trial(
        self,
        trial_id: str,
        config: TrialConfig,
        params: Mapping[str, Any],
        role: Role,
        run_id: str | None = None,
        *,
        tags: Mapping[str, str] = {},
        below: str = "",
    ) -> str:
        """Open a child run, or continue one (its logged epochs stay); returns its run id.

        A trial has one run: a call that failed half way is repeated with the run that it created.

        Args:
            trial_id: the run's name.
            config: logged as a whole, as the artifact `config.yaml`.
            params: the searched keys only, so that parallel coordinates stay readable.
            role: tag `faar_ray.role`.
            run_id: of the run to continue; a new one is created where MLflow has no such run any more.
            tags: more of them.
            below: run of the trial that this one stands below; "" for the search's.
        """
        known = run_id or self.runs.get(trial_id)
        run = known if known and self._reopen(known) else self._create_child(trial_id, config, role, tags, below)
        self.runs[trial_id] = run

        texts = {key: "null" if value is None else str(value) for key, value in params.items()}
        pairs = [Param(metric_name(key), text[:LONGEST_PARAM]) for key, text in texts.items()]
        for chunk in _chunks(pairs, PARAMS_PER_BATCH):
            self._client.log_batch(run, params=chunk)
        if tags:
            self.tag(run, tags)
        self._log_text(run, yaml.safe_dump(config.model_dump(mode="json"), sort_keys=False), "config.yaml")
        return run

    def log_epochs(
        self, run_id: str, epochs: Mapping[int, Mapping[str, float]], ended_at: Mapping[int, float] = {}
    ) -> None:
        """Log epochs (step = epoch) in as few batches as MLflow allows; what the run already has is skipped.

        Args:
            run_id: the child.
            epochs: 0-based epoch -> its metrics; those that are not finite are left out.
            ended_at: epoch -> Unix time of its end; now where it is missing.
        """
        now, known = time.time(), self._known(run_id)
        rows = [
            Metric(key, float(value), int(1000 * ended_at.get(epoch, now)), epoch)
            for epoch, metrics in epochs.items()
            for name, value in metrics.items()
            if math.isfinite(value) and ((key := metric_name(name)), epoch) not in known
        ]
        try:
            for chunk in _chunks(rows, METRICS_PER_BATCH):
                self._client.log_batch(run_id, metrics=chunk)
                known.update((row.key, row.step) for row in chunk)
        except BaseException:  # it may be written although its answer was lost
            self._logged.pop(run_id, None)
            raise

    def log_file(self, run_id: str, path: Path, name: str) -> None:
        """Log a file as the artifact `name`."""
        if path.name == name:
            self._client.log_artifact(run_id, str(path))
            return
        with TemporaryDirectory() as folder:  # MLflow has no other way to rename
            self._client.log_artifact(run_id, str(shutil.copyfile(path, Path(folder) / name)))

    def tag(self, run_id: str, tags: Mapping[str, str]) -> None:
        """Set tags of a run."""
        self._client.log_batch(run_id, tags=[RunTag(key, value[:LONGEST_TAG]) for key, value in tags.items()])

    def log_final(self, run_id: str, metrics: Mapping[str, float]) -> None:
        """Log metrics (`test/...`) that the run lacks, at the last epoch's step; its state stays."""
        if run_id not in self._logged:  # one call instead of one per metric
            logged = self._client.get_run(run_id).data.metrics
            metrics = {name: value for name, value in metrics.items() if metric_name(name) not in logged}
        if metrics:
            last = max((step for _, step in self._known(run_id)), default=0)
            self.log_epochs(run_id, {last: metrics})

    def end_trial(
        self,
        run_id: str,
        state: State,
        *,
        metrics: Mapping[str, float] | None = None,
        reason: str = "",
        tags: Mapping[str, str] = {},
    ) -> None:
        """Close a child run: COMPLETE -> FINISHED, PRUNED -> KILLED, FAIL -> FAILED.

        Args:
            run_id: the child.
            state: how it ended; also the tag `faar_ray.state`.
            metrics: final ones (`test/...`), logged at the last epoch's step.
            reason: why it was stopped or failed; the tag `faar_ray.reason`.
            tags: more of them.
        """
        if state == "RUNNING":
            raise ValueError("a trial cannot end RUNNING")
        if metrics:
            self.log_final(run_id, metrics)
        self.tag(run_id, {"faar_ray.state": state, **tags} | ({"faar_ray.reason": reason} if reason else {}))
        self._client.set_terminated(run_id, STATUS[state])

    def end_search(self, status: SearchStatus, artifacts: Path | None = None) -> None:
        """Close the parent run; `artifacts` is a folder (the report) that is logged under its own name."""
        if artifacts is not None and artifacts.is_dir() and not self.artifact_fault:
            self._client.log_artifacts(self.parent, str(artifacts), artifacts.name)
        self._client.set_terminated(self.parent, status)

    def children(self) -> dict[str, Child]:
        """Child runs of the parent by trial id, one for each."""
        return {name: Child.of(run) for name, run in best_of_each_trial(self._children()).items()}

    def close_running(self, state: State, reason: str) -> list[str]:
        """Close children that are still RUNNING; returns their trial ids."""
        running = [run for run in self._children() if run.info.status == "RUNNING"]
        for run in running:
            self.end_trial(run.info.run_id, state, reason=reason)
        return [run.data.tags.get(TRIAL_TAG, "") for run in running]

    def close_abandoned(self, run_id: str) -> None:
        """Close a run of a search that was killed before any trial began, and whose folder is used anew."""
        run = run_or_none(self._client, run_id)
        if run is not None and run.info.status == "RUNNING" and not is_deleted(run):
            self.end_trial(run_id, "PRUNED", reason="it ended before any trial began")

    def _adopt_orphans(self) -> None:
        for run in self._orphans:
            adopt(self._client, run, self.parent)
        self._settle_children([self._client.get_run(run.info.run_id) for run in self._orphans])
        self._orphans = []

    def _settle_children(self, children: Sequence[Run]) -> None:
        if restored := restore_deleted(self._client, children):
            self.notices.append(f"{restored} trials' runs had been deleted in MLflow; they are restored")
        active = [run for run in children if not is_deleted(run)]
        chosen = best_of_each_trial(active)
        for run in active:
            if run not in chosen.values() and TRIAL_TAG in run.data.tags and run.info.status == "RUNNING":
                trial_id = run.data.tags[TRIAL_TAG]
                reason = f"left open beside {chosen[trial_id].info.run_id}, the run of {trial_id}"
                self.end_trial(run.info.run_id, "FAIL", reason=reason, tags={DUPLICATE_TAG: trial_id})
                self._client.delete_tag(run.info.run_id, TRIAL_TAG)

    def _create_child(self, trial_id: str, config: TrialConfig, role: Role, more: Mapping[str, str], below: str) -> str:
        if trial_id in self._uncertain and (child := self.children().get(trial_id)) is not None:
            return child.run_id

        tags = {
            "faar_ray.role": role,
            TRIAL_TAG: trial_id,
            "faar_ray.config_id": config_id(config),
            "faar_ray.seed": str(config.seed),
            PROTOCOL_TAG: config.data.evaluated_as,
            **more,
        }
        if self.parent:
            self._uncertain.add(trial_id)
            tags |= {PARENT_TAG: below, SEARCH_TAG: self.parent} if below else {PARENT_TAG: self.parent}
        run = self._create(trial_id, tags)
        self._uncertain.discard(trial_id)
        self._logged[run] = set()
        return run

    def _create(self, name: str, tags: Mapping[str, str]) -> str:
        with quiet():
            short = {key: str(value)[:LONGEST_TAG] for key, value in tags.items()}
            return str(self._client.create_run(self.experiment_id, tags=short, run_name=name).info.run_id)

    def _reopen(self, run_id: str) -> bool:
        """Make a run RUNNING again, without the reason of its end; False where MLflow has no such run."""
        if not self._is_known(self._client.update_run, run_id, "RUNNING"):
            return False
        self._is_known(self._client.delete_tag, run_id, REASON_TAG)
        return True

    @staticmethod
    def _is_known(call: Callable[[str, str], object], run_id: str, value: str) -> bool:
        try:
            call(run_id, value)
        except MlflowException as error:
            if not is_unknown_run(error):
                raise
            return False
        return True

    def _known(self, run_id: str) -> set[tuple[str, int]]:
        """(metric, step) pairs that a run has; read from MLflow once, then remembered."""
        if run_id not in self._logged:
            names = self._client.get_run(run_id).data.metrics
            history = (self._client.get_metric_history(run_id, name) for name in names)
            self._logged[run_id] = {(metric.key, metric.step) for points in history for metric in points}
        return self._logged[run_id]

    def _children(self) -> Iterator[Run]:
        """Runs of trials."""
        return trials_of(self._client, self.experiment_id, self.parent)

    def _log_text(self, run_id: str, text: str, name: str) -> None:
        if not self.artifact_fault:
            self._client.log_text(run_id, text, name)


def _chunks(rows: Sequence[T], size: int) -> Iterator[Sequence[T]]:
    for start in range(0, len(rows), size):
        yield rows[start : start + size]
