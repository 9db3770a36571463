"""The main job: a search space in, an answer out.

references -> trials and controls (Ray Tune asks the search_state, the search_state asks Optuna) -> results, report, answer
"""

from __future__ import annotations

import contextlib
import dataclasses
import functools
import shutil
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

from ray.tune import Trainable

from faar_ray.cluster.autoscaling import cluster_capacity, cluster_from_ray, cluster_of
from faar_ray.cluster.ray_cluster import connected
from faar_ray.errors import FaarRayError, NothingFeasible, StorageError
from faar_ray.records import TrialResult
from faar_ray.report.results import write_results
from faar_ray.report.words.answer import Answer, answer
from faar_ray.storage.run_location import RunLocation
from faar_ray.tracking.mlflow.mlflow_faults import needed
from faar_ray.tracking.mlflow.writer import Tracker
from faar_ray.tune.execute import ray_tune as cluster
from faar_ray.tune.execute.ray_tune_adapters import abort_on_storage_error
from faar_ray.tune.execute.resource_monitor import ResourceMonitor
from faar_ray.tune.execute.trainable import TrialActor
from faar_ray.tune.propose.journal import open_journal, tests
from faar_ray.tune.propose.proposer import Proposer
from faar_ray.tune.propose.warm_start import warm_start
from faar_ray.tune.run import run_folder
from faar_ray.tune.run.datasets import make_data
from faar_ray.tune.run.jobs import Job, RunContext, control_jobs, job_of, shards_uri
from faar_ray.tune.run.references import References
from faar_ray.tune.run.remote_run import open_remote_run
from faar_ray.tune.run.run_folder import RunFolder, repair_traces
from faar_ray.tune.search_state import SearchState, Watcher
from faar_ray.tune.show.mlflow_watcher import HASTE, Pen
from faar_ray.tune.show.outcome import best_of
from faar_ray.tune.show.progress import Progress
from faar_ray.tune.space.space import SearchSpace


@dataclass(frozen=True)
class Outcome:
    """What a search left."""

    place: RunLocation
    tracking_uri: str
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
    """Writes that MLflow was too long away for; `--resume` makes them."""


@dataclass(frozen=True)
class Parts:
    """What a search is put together from; a benchmark gives others, which measure or replay."""

    search_state: Callable[..., SearchState] = SearchState
    actor: type[Trainable] = TrialActor


def run_search(
    space: SearchSpace,
    name: str,
    progress: Progress,
    *,
    resume: bool,
    address: str | None,
    parts: Parts = Parts(),
) -> Outcome:
    """Run or resume a search to its end, in a folder that `check_name` has let through.

    Raises:
        ConfigError: before anything is started.
        KeyboardInterrupt: after all runs were closed.
    """
    place = run_folder.run_location_of(space, name)
    fresh = not resume
    with locked_run(place, space, fresh=fresh) as folder, open_remote_run(place, fresh=fresh) as remote:
        study = open_journal(folder.study_log, space.name, space.objectives)
        warm_start(study, space, progress.note)
        proposer = Proposer(space, study)
        pen = Pen(functools.partial(open_tracker, space, name, folder), folder.path, progress.note)
        progress.backlog, progress.waiting = pen.backlog, pen.waiting
        with closing(pen, folder, proposer):
            if resume:
                repair_traces(place, proposer.results(), progress.note)
            references = References(space, proposer.results())
            pen.reconcile([(job_of(space, result), result) for result in proposer.results()])
            watchers: list[Watcher] = [*([remote] if remote else []), pen, progress]
            search_state = parts.search_state(
                space,
                proposer,
                references,
                control_jobs(space),
                watchers=watchers,
                run_id=pen.run_id,
                notify=progress.note,
            )
            if not search_state.finished():
                train(space, search_state, folder, place, pen, progress, address, parts.actor)
            progress.phase("writing the report")
            if remote:
                remote.gather()
            found = conclude(space, folder, place, proposer, search_state, pen)
            if remote:
                remote.push()
            return found


def train(
    space: SearchSpace,
    search_state: SearchState,
    folder: RunFolder,
    place: RunLocation,
    pen: Pen,
    progress: Progress,
    address: str | None,
    actor: type[Trainable],
) -> None:
    """References, trials and controls, under Ray."""
    around = RunContext(place, space.resources, space.storage.keep_checkpoints)

    def spec(job: Job) -> dict[str, object]:
        alone = job.role == "reference"
        return around.spec(
            job, {} if alone else search_state.references.val, {} if alone else search_state.references.test
        )

    progress.phase("starting Ray")
    with connected(address) as machines:
        cluster_file = None if address is None else cluster_of(space.resources.cluster) or cluster_from_ray(machines)
        search_state.concurrent = cluster_capacity(space.resources, machines, cluster_file).concurrent
        make_data(space, progress.phase, shards_uri(place))
        progress.phase("opening MLflow")
        assert pen.tracker.parent  # nothing starts before MLflow is open
        with abort_on_storage_error(search_state, folder.path):
            watch = ResourceMonitor(search_state, space.resources, progress.machines)
            cluster.run_jobs(search_state, spec, space.resources, space.failure.max_retries, folder.ray, actor, watch)
    if isinstance(search_state.fatal, StorageError):
        raise search_state.fatal


def conclude(
    space: SearchSpace, folder: RunFolder, place: RunLocation, proposer: Proposer, search_state: SearchState, pen: Pen
) -> Outcome:
    """Results, report and answer of a search that came to its end; MLflow has the last word, and may be late."""
    uri, parent = pen.tracker.uri, pen.tracker.parent
    for trial_id, metrics in tests(proposer.study).items():
        pen.tested(trial_id, metrics)
    pen.settle()
    results = write_search_results(folder, proposer, pen)
    finished = [result for result in results if result.role == "trial" and result.state == "COMPLETE"]
    complete = [result for result in finished if proposer.feasible(result)]
    fault = search_state.fatal or (None if complete else nothing_feasible(space, results))
    report = build_report(folder.path, pen)
    unwritten = pen.end_search("FAILED" if search_state.fatal else "FINISHED", report)
    if not all(result.run_id for result in results):  # runs that were made at last
        write_search_results(folder, proposer, pen)
    best = best_of(complete, space.objectives)
    found = answer(results, space.objectives, space.limits)
    counts = proposer.counts()
    return Outcome(place, uri, parent, counts, results, best, found, search_state.limit, fault, unwritten)


def write_search_results(folder: RunFolder, proposer: Proposer, pen: Pen) -> list[TrialResult]:
    """`results.parquet`, with what the test split gave and MLflow's run ids."""
    results = [dataclasses.replace(r, run_id=pen.run_id(r.trial_id) or r.run_id) for r in proposer.results()]
    write_results(folder.results, results)
    return results


def build_report(folder: Path, pen: Pen) -> Path | None:
    """The HTML report; its failure is said, and takes nothing away from the search."""
    try:
        from faar_ray.report import build_report as build  # plots are wanted here only

        build(folder)
    except Exception as fault:
        pen.note(f"the report could not be made ({type(fault).__name__}: {fault})")
        return None
    return folder / "report"


def nothing_feasible(space: SearchSpace, results: Sequence[TrialResult]) -> NothingFeasible:
    """Why there is no best."""
    complete = [result for result in results if result.role == "trial" and result.state == "COMPLETE"]
    if not complete:
        return NothingFeasible("no trial of the search finished")
    return NothingFeasible(f"none of {len(complete)} finished trials satisfies {' and '.join(space.constraints)}")


def open_tracker(space: SearchSpace, name: str, folder: RunFolder) -> Tracker:
    """MLflow with the search's parent run open: the one of `run.json`, else a new one."""
    tracker = Tracker(space.tracking.uri, space.tracking.experiment or space.name)
    before = run_folder.read_run(folder)
    known = before.get("parent_run_id") if before.get("tracking_uri") == tracker.uri else None
    with needed(tracker.uri):
        if known is None or not tracker.resume_search(known):  # the latter: a new view of the same journal
            tracker.start_search(name, run_folder.as_yaml(space), {}, seed=space.search.seed)
    objectives = [objective.model_dump() for objective in space.objectives]
    facts = {"name": name, "tracking_uri": tracker.uri, "parent_run_id": tracker.parent, "objectives": objectives}
    run_folder.write_run(folder, facts)
    return tracker


@contextlib.contextmanager
def locked_run(place: RunLocation, space: SearchSpace, *, fresh: bool) -> Iterator[RunFolder]:
    """Hold the folder; one that was made for a search that could not start is taken away again."""
    path = place.path
    folder = run_folder.lock_run(path, space, emptied=fresh and bool(place.uri))
    try:
        yield folder
    except FaarRayError as fault:
        if fresh and not isinstance(fault, StorageError) and not any((path / "trials").iterdir()):
            shutil.rmtree(path, ignore_errors=True)
        raise
    finally:
        folder.close()


@contextlib.contextmanager
def closing(pen: Pen, folder: RunFolder, proposer: Proposer) -> Iterator[None]:
    """Whatever happens, no MLflow run stays open and what finished is written down."""
    try:
        yield
    except BaseException as fault:
        interrupted = isinstance(fault, KeyboardInterrupt | StorageError)
        cause = "interrupted" if isinstance(fault, KeyboardInterrupt) else f"{type(fault).__name__}: {fault}"
        reason = f"{cause}; --resume goes on" if interrupted else cause
        pen.close_running("PRUNED" if interrupted else "FAIL", reason)
        with contextlib.suppress(Exception):
            write_search_results(folder, proposer, pen)
        if left := pen.end_search("KILLED" if interrupted else "FAILED", patience=HASTE):
            pen.note(f"MLflow is away and lacks the last writes ({left}); --resume makes them")
        raise
