"""Runs as MLflow has them: found by their ids wherever they are, deleted ones restored, one for each trial."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, TypeVar

from mlflow import MlflowClient
from mlflow.entities import Run, ViewType
from mlflow.exceptions import MlflowException
from mlflow.store.entities import PagedList

from faar_ray.errors import ConfigError
from faar_ray.records import State, TrialResult
from faar_ray.tracking.mlflow.store import client, database_file, is_unknown_run, metric_name, quiet

T = TypeVar("T")
SEARCH_TAG = "faar_ray.search_run_id"
"""Of a run below another trial's: the search's run, whose child it is not."""
PARENT_TAG, TRIAL_TAG, ARTIFACTS_TAG = "mlflow.parentRunId", "faar_ray.trial_id", "faar_ray.artifacts"
REASON_TAG, FOLDER_TAG = "faar_ray.reason", "faar_ray.folder_id"
DUPLICATE_TAG = "faar_ray.duplicate_of"
"""In place of TRIAL_TAG, of a run that was left open beside another one of the same trial."""
PROTOCOL_TAG = "faar_ray.protocol"
"""How the metrics were measured (`DataConfig.evaluated_as`)."""
ENDS = ("SCHEDULED", "RUNNING", "FAILED", "KILLED", "FINISHED")
STATUS: dict[State, str] = {"COMPLETE": "FINISHED", "PRUNED": "KILLED", "FAIL": "FAILED", "RUNNING": "RUNNING"}


@dataclass(frozen=True, slots=True)
class KnownRun:
    """What a folder knows of its MLflow run; nothing for a folder that is new."""

    run_id: str = ""
    folder_id: str = ""
    """The run's tag FOLDER_TAG, which is written down before the run is made."""
    tracking_uri: str = ""
    """Where the run was."""

    @classmethod
    def of(cls, facts: Mapping[str, Any], run_key: str) -> KnownRun:
        """What a folder's `run.json` says, with the run's id under `run_key`."""
        return cls(*(str(facts.get(key) or "") for key in (run_key, "folder_id", "tracking_uri")))

    def find(self, client: MlflowClient) -> Run | None:
        """The run, also a deleted one, whatever its experiment; None where MLflow does not have it."""
        if self.run_id and (run := run_or_none(client, self.run_id)) is not None:
            return run
        if not self.folder_id:
            return None
        return next(search_all(client, f"tags.`{FOLDER_TAG}` = '{self.folder_id}'"), None)

    def check_database(self, uri: str, *, found: bool) -> None:
        """Refuse a database without the run while the run's own is still there: no second copy is begun by mistake.

        Args:
            uri: made absolute.
            found: whether it has the run; False also for a file that does not exist.

        Raises:
            ConfigError: naming both.
        """
        old, new = database_file(self.tracking_uri), database_file(uri)
        if found or old is None or new is None or old == new or not old.is_file():
            return
        raise ConfigError(
            f"tracking.uri: {uri} does not have the MLflow run of this folder, and {self.tracking_uri} is still there: "
            f"give tracking.uri={self.tracking_uri}, or move that file"
        )


@dataclass(frozen=True, slots=True)
class Child:
    """A trial's run as it is in MLflow."""

    run_id: str
    status: str
    tags: Mapping[str, str]
    metrics: frozenset[str]

    @classmethod
    def of(cls, run: Run) -> Child:
        """As MLflow gives it."""
        return cls(run.info.run_id, run.info.status, run.data.tags, frozenset(run.data.metrics))

    @property
    def artifacts(self) -> set[str] | None:
        """Names of the artifacts it was closed with; None for a run of an older version, which has no such tag."""
        names = self.tags.get(ARTIFACTS_TAG)
        return None if names is None else set(names.split())

    def has(self, metrics: Mapping[str, float]) -> bool:
        """Whether all of these metrics are logged, at any step."""
        return {metric_name(name) for name, value in metrics.items() if math.isfinite(value)} <= self.metrics

    def is_complete(self, result: TrialResult) -> bool:
        """Whether the run was closed with this result."""
        expected = (STATUS[result.state], result.state, str(result.reached))
        actual = (self.status, self.tags.get("faar_ray.state"), self.tags.get("faar_ray.epochs"))
        return actual == expected and self.has(result.metrics)


NOTHING_KNOWN = KnownRun()


def run_or_none(client: MlflowClient, run_id: str) -> Run | None:
    """A run by its id, also a deleted one; None where MLflow has none."""
    try:
        return client.get_run(run_id)
    except MlflowException as error:
        if not is_unknown_run(error):
            raise
        return None


def search(
    client: MlflowClient, experiments: Sequence[str], condition: str, view: int = ViewType.ACTIVE_ONLY
) -> Iterator[Run]:
    """Runs of some experiments, oldest first."""
    order = ["attributes.start_time"]
    return _all_pages(lambda token: client.search_runs(list(experiments), condition, view, 1000, order, token))


def trials_of(client: MlflowClient, experiment: str, parent: str, view: int = ViewType.ACTIVE_ONLY) -> Iterator[Run]:
    """Runs of a search's trials, its children and those below them."""
    for tag in (PARENT_TAG, SEARCH_TAG):
        yield from search(client, [experiment], f"tags.`{tag}` = '{parent}'", view)


def adopt(client: MlflowClient, run: Run, parent: str) -> None:
    """Give a trial's run the search's run as it is now, restored if it was deleted."""
    if is_deleted(run):
        client.restore_run(run.info.run_id)
    client.set_tag(run.info.run_id, SEARCH_TAG if SEARCH_TAG in run.data.tags else PARENT_TAG, parent)


def search_all(client: MlflowClient, condition: str) -> Iterator[Run]:
    """Runs of all experiments, deleted ones too."""
    experiments = _all_pages(lambda token: client.search_experiments(ViewType.ALL, page_token=token))
    ids = [experiment.experiment_id for experiment in experiments]
    for start in range(0, len(ids), 100):
        yield from search(client, ids[start : start + 100], condition, ViewType.ALL)


def _all_pages(fetch: Callable[[str | None], PagedList[T]]) -> Iterator[T]:
    token: str | None = None
    while token != "":
        page = fetch(token)
        yield from page
        token = page.token or ""


def is_deleted(run: Run) -> bool:
    """Whether it was deleted in MLflow, which keeps it until `mlflow gc`."""
    return bool(run.info.lifecycle_stage != "active")


def best_of_each_trial(runs: Iterable[Run]) -> dict[str, Run]:
    """One run for each trial id: the one that got farthest, and of two the newer."""
    ordered = sorted(runs, key=lambda run: (ENDS.index(run.info.status), run.info.start_time or 0))
    return {run.data.tags[TRIAL_TAG]: run for run in ordered if TRIAL_TAG in run.data.tags}


def restore_deleted(client: MlflowClient, children: Iterable[Run]) -> int:
    """Restore deleted trials that have no other run; gives their number."""
    children = list(children)
    active = best_of_each_trial(run for run in children if not is_deleted(run))
    deleted = best_of_each_trial(run for run in children if is_deleted(run))
    missing = [run for trial, run in deleted.items() if trial not in active]
    for run in missing:
        client.restore_run(run.info.run_id)
    return len(missing)


def open_runs(uri: str) -> list[str]:
    """Names of all runs that are RUNNING in a database or on a server."""
    with quiet():
        mlflow = client(uri)
        ids = [experiment.experiment_id for experiment in mlflow.search_experiments()]
        return [run.info.run_name for run in mlflow.search_runs(ids, "attributes.status = 'RUNNING'")]
