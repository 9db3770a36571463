"""The main job: a search space in, an answer out.

references -> trials and controls (Ray Tune asks the search state, which asks Optuna) -> results, report, answer
"""

from __future__ import annotations

import contextlib
import dataclasses
import functools
import shutil
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from uuid import uuid4

from ray.tune import Trainable

from faar_ray.cluster.autoscaling import cluster_capacity, cluster_from_ray
from faar_ray.cluster.ray_cluster import Machine, connected
from faar_ray.errors import FaarRayError, NothingFeasible, StorageError
from faar_ray.records import FOUND, State, TrialResult
from faar_ray.report.results import write_results
from faar_ray.report.words.answer import Answer, build_answer
from faar_ray.report.words.protocol import measured_as
from faar_ray.storage.interruption import described, write_note
from faar_ray.storage.run_location import RunLocation
from faar_ray.tracking.mlflow.runs import FOLDER_TAG, KnownRun
from faar_ray.tracking.mlflow.store import config_error_on_failure
from faar_ray.tracking.mlflow.sync_thread import updates
from faar_ray.tracking.mlflow.writer import SearchStatus, Tracker
from faar_ray.train.checkpoint import drop_old_checkpoints
from faar_ray.train.trial_spec import TrialSpec
from faar_ray.tune.execute.ray_tune import run_jobs
from faar_ray.tune.execute.ray_tune_adapters import abort_on_storage_error
from faar_ray.tune.execute.resource_monitor import ResourceMonitor
from faar_ray.tune.execute.trainable import TrialActor
from faar_ray.tune.propose.journal import finals, keep_end, keep_limit, open_journal
from faar_ray.tune.propose.proposer import Proposer
from faar_ray.tune.propose.warm_start import warm_start
from faar_ray.tune.run import run_folder
from faar_ray.tune.run.datasets import make_data
from faar_ray.tune.run.jobs import Job, RunContext, control_jobs, job_of, shards_uri
from faar_ray.tune.run.references import References
from faar_ray.tune.run.remote_run import open_remote_run
from faar_ray.tune.run.resolved_search import ResolvedSearch
from faar_ray.tune.run.run_folder import RunFolder, repair_traces
from faar_ray.tune.search_state import SearchState, Watcher
from faar_ray.tune.show.mlflow_watcher import MLflowWatcher
from faar_ray.tune.show.outcome import best_of
from faar_ray.tune.show.reporter import Reporter
from faar_ray.tune.space.space import SearchSpace


@dataclass(frozen=True)
class Outcome:
    """What a search found."""

    place: RunLocation
    tracking_uri: str
    experiment_id: str
    parent_run_id: str
    counts: dict[str, int]
    results: list[TrialResult]
    best: list[TrialResult]
    """Feasible, complete and dominated by none."""
    answer: Answer
    limit: str
    """Which budget ended it, "" for none but the number of trials."""
    fault: FaarRayError | None
    """Too many failures, nothing feasible, a failed reference."""
    unwritten: int = 0
    """Updates that MLflow lacks because it was unavailable; `--resume` writes them."""


@dataclass(frozen=True)
class Parts:
    """What a search is put together from; a benchmark gives others, which measure or replay."""

    search_state: Callable[..., SearchState] = SearchState
    actor: type[Trainable] = TrialActor


def run_search(
    search: ResolvedSearch, progress: Reporter, *, resume: bool, parts: Parts = Parts(), resume_command: str = ""
) -> Outcome:
    """Run or resume a search to its end, in a folder that `check_resumable` has accepted.

    Args:
        search: what is searched, and where.
        progress: is told what happens.
        resume: go on with the folder.
        parts: what the search is put together from.
        resume_command: for the note in the run's folder, if the search is interrupted.

    Raises:
        ConfigError: before anything is started.
        KeyboardInterrupt: after all runs were closed.
    """
    space, place, fresh = search.space, search.location, not resume
    with locked_run(place, space, fresh=fresh) as folder, open_remote_run(place, fresh=fresh) as remote:
        study = open_journal(folder.study_log, space.name, space.study_objectives)
        keep_end(study, ended=False)
        warm_start(study, space, progress.note)
        proposer = Proposer(space, study)
        opened = functools.partial(open_tracker, space, folder, fresh=fresh, weights=search.weights)
        mlflow = MLflowWatcher(opened, folder.path, progress.note)
        progress.backlog, progress.waiting = mlflow.backlog, mlflow.waiting
        with closing(mlflow, folder, proposer, resume_command):
            if resume:
                repair_traces(place, proposer.results(), progress.note)
            references = References(space, proposer.results(), weights=search.weights)
            mlflow.reconcile([(job_of(space, result), result) for result in proposer.results()])
            watchers: list[Watcher] = [*([remote] if remote else []), mlflow, progress]
            search_state = parts.search_state(
                space,
                proposer,
                references,
                control_jobs(space),
                watchers=watchers,
                run_id=mlflow.run_id,
                remove_prefix=functools.partial(remove_trial, place),
                trim_trunk=functools.partial(trim_trial, place, space.storage.keep_checkpoints),
                notify=progress.note,
            )
            if not search_state.finished():
                train(search, search_state, folder, mlflow, progress, parts.actor)
            progress.phase("writing the report")
            repair_traces(place, proposer.results(), progress.note)
            if remote:
                remote.gather()
            outcome = conclude(space, folder, place, proposer, search_state, mlflow)
            if remote:
                remote.push()
            return outcome


def train(
    search: ResolvedSearch,
    search_state: SearchState,
    folder: RunFolder,
    mlflow: MLflowWatcher,
    progress: Reporter,
    actor: type[Trainable],
) -> None:
    """References, trials and controls, under Ray."""
    space, place = search.space, search.location
    around = RunContext(place, space.resources, space.storage.keep_checkpoints, search.moved)

    def spec(job: Job) -> TrialSpec:
        alone = job.role == "reference"
        return around.spec(
            job, {} if alone else search_state.references.val, {} if alone else search_state.references.test
        )

    progress.phase("starting Ray")
    with connected(search.address, modules=modules_of(space)) as machines:
        search_state.concurrent = concurrent_trials(search, machines)
        make_data(space, progress.phase, shards_uri(place))
        progress.phase("opening MLflow")
        assert mlflow.tracker.parent  # nothing starts before MLflow is open
        with abort_on_storage_error(search_state, folder.path):
            watch = ResourceMonitor(search_state, space.resources, progress.machines)
            run_jobs(search_state, spec, space.resources, space.failure.max_retries, folder.ray, actor, watch)
    if isinstance(search_state.fatal, StorageError):
        raise search_state.fatal


def remove_trial(place: RunLocation, name: str) -> None:
    """Delete the files of a prefix, here and in object storage."""
    trial = place.trial(name)
    shutil.rmtree(trial.folder, ignore_errors=True)
    trial.remote_copy.push()


def trim_trial(place: RunLocation, keep: int, name: str) -> None:
    """Delete the checkpoints of a trunk but the newest, here and in object storage."""
    trial = place.trial(name)
    drop_old_checkpoints(trial.folder, keep)
    if place.uri:
        store = trial.remote_copy.store
        for old in sorted(store.files(f"trials/{name}/checkpoints"))[:-keep]:
            store.delete(old)


def modules_of(space: SearchSpace) -> list[str]:
    """The modules that trials import: `data.module` of the base and the controls."""
    configs = [space.trial_config(changes) for changes in ({}, *space.controls)]
    return sorted({config.data.module for config in configs if config.data.module})


def concurrent_trials(search: ResolvedSearch, machines: Sequence[Machine]) -> int:
    """How many trials run at once: on this machine as resolved, on a cluster by what it has and may get.

    Raises:
        ConfigError: no trial ever fits.
    """
    if search.capacity is not None:
        return search.capacity.concurrent
    cluster_file = search.cluster_file or cluster_from_ray(machines)
    return cluster_capacity(search.space.resources, machines, cluster_file).concurrent


def conclude(
    space: SearchSpace,
    folder: RunFolder,
    place: RunLocation,
    proposer: Proposer,
    search_state: SearchState,
    mlflow: MLflowWatcher,
) -> Outcome:
    """Results, report and answer of a search that came to its end; MLflow has the last word, and may be late."""
    uri, experiment, parent = mlflow.tracker.uri, mlflow.tracker.experiment_id, mlflow.tracker.parent
    mlflow.flush(finals(proposer.study))
    results = write_search_results(folder, proposer, mlflow)
    finished = [result for result in results if result.role in FOUND and result.state == "COMPLETE"]
    complete = [result for result in finished if proposer.feasible(result)]
    fault = search_state.fatal or (None if complete else nothing_feasible(space, results))
    keep_end(proposer.study, ended=True)
    limit = search_state.limit or proposer.ended_early()
    keep_limit(proposer.study, limit)
    report = build_report(folder.path, mlflow)
    unwritten = mlflow.end_search("FAILED" if search_state.fatal else "FINISHED", report)
    if not all(result.run_id for result in results):  # runs that were made at last
        write_search_results(folder, proposer, mlflow)
    best = best_of(complete, space.objectives)
    answer = build_answer(results, space.objectives, space.limits)
    counts = proposer.counts()
    where = (place, uri, experiment, parent)
    return Outcome(*where, counts, results, best, answer, limit, fault, unwritten)


def write_search_results(folder: RunFolder, proposer: Proposer, mlflow: MLflowWatcher) -> list[TrialResult]:
    """`results.parquet`, with what the test split gave and MLflow's run ids."""
    results = [dataclasses.replace(r, run_id=mlflow.run_id(r.trial_id) or r.run_id) for r in proposer.results()]
    measured = measured_as(proposer.space.trial_config({}).data, results)
    write_results(folder.results, results, measured)
    return results


def build_report(folder: Path, mlflow: MLflowWatcher) -> Path | None:
    """The HTML report, None where it failed: that is noted, and the search is still valid."""
    try:
        from faar_ray.report import build_report as build  # plots are wanted here only

        build(folder)
    except Exception as fault:
        mlflow.notify(f"the report could not be made ({type(fault).__name__}: {fault})")
        return None
    return folder / "report"


def nothing_feasible(space: SearchSpace, results: Sequence[TrialResult]) -> NothingFeasible:
    """The fault of a search without a best trial."""
    complete = [result for result in results if result.role in FOUND and result.state == "COMPLETE"]
    if not complete:
        return NothingFeasible("no trial of the search finished")
    return NothingFeasible(f"none of {len(complete)} finished trials satisfies {' and '.join(space.constraints)}")


def open_tracker(
    space: SearchSpace, folder: RunFolder, *, fresh: bool = False, weights: Mapping[str, str] | None = None
) -> Tracker:
    """MLflow with the search's parent run open: the one that `run.json` knows by its ids, else a new one.

    Args:
        space: the search space.
        folder: of the run.
        fresh: whether the search starts; a run in `run.json` is then of one that was killed before any trial began.
        weights: digests of the weights that backbones begin with.
    """
    before = run_folder.read_run(folder.path)
    known = KnownRun() if fresh else KnownRun.of(before, "parent_run_id")
    tracker = Tracker(space.tracking.uri, space.tracking.experiment or space.name, known)
    folder_id = known.folder_id or uuid4().hex
    objectives = [objective.model_dump() for objective in space.objectives]
    facts: dict[str, Any] = {"name": space.name, "tracking_uri": tracker.uri, "parent_run_id": tracker.known_run}
    facts |= {"folder_id": folder_id, "objectives": objectives, "weights": dict(weights or {})}
    run_folder.write_run(folder, facts)  # before a run is made: a driver that is killed now leaves none that is unknown

    with config_error_on_failure(tracker.uri):
        if fresh and (abandoned := before.get("parent_run_id")):
            tracker.close_abandoned(str(abandoned))
        tags = {FOLDER_TAG: folder_id}
        if not tracker.resume_search(tags):  # a new view of the same journal
            tracker.start_search(space.name, run_folder.as_yaml(space), tags, seed=space.search.seed)
    run_folder.write_run(folder, facts | {"parent_run_id": tracker.parent})
    return tracker


@contextlib.contextmanager
def locked_run(place: RunLocation, space: SearchSpace, *, fresh: bool) -> Iterator[RunFolder]:
    """Lock the run's folder; one made for a search that could not start is deleted again."""
    path = place.path
    folder = run_folder.lock_run(path, space, fresh=fresh, is_copy=bool(place.uri))
    try:
        yield folder
    except BaseException as fault:
        goes_on = isinstance(fault, KeyboardInterrupt | StorageError)  # by the command that is printed
        if fresh and not goes_on and not run_folder.has_begun(path):
            shutil.rmtree(path, ignore_errors=True)
        raise
    finally:
        folder.close()


@contextlib.contextmanager
def closing(mlflow: MLflowWatcher, folder: RunFolder, proposer: Proposer, resume_command: str) -> Iterator[None]:
    """However the search ends, close all MLflow runs and write the results so far, and how it goes on."""
    try:
        yield
    except BaseException as fault:
        interrupted = isinstance(fault, KeyboardInterrupt | StorageError)
        cause = "interrupted" if isinstance(fault, KeyboardInterrupt) else f"{type(fault).__name__}: {fault}"
        if interrupted and resume_command and (note := write_note(folder.path, described(fault), resume_command)):
            mlflow.notify(f"closing all runs; how to go on is in {note}")
        reason = f"{cause}; --resume goes on" if interrupted else cause
        with contextlib.suppress(Exception):
            write_search_results(folder, proposer, mlflow)
        status: SearchStatus = "KILLED" if interrupted else "FAILED"
        open_trials: State = "PRUNED" if interrupted else "FAIL"
        if missing := mlflow.end_search(status, open_trials=(open_trials, reason)):
            mlflow.notify(f"MLflow is unavailable and lacks the last {updates(missing)}; --resume completes it")
        raise
