"""The watcher that writes a search to MLflow, in a thread of its own, so that no slow database delays a trial.

The run's folder is the truth and MLflow a view of it. What is missing at the search's end, `--resume` completes.
"""

from __future__ import annotations

import dataclasses
import threading
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path

from faar_ray.records import State, TrialResult
from faar_ray.storage.run_location import TrialPaths
from faar_ray.tracking.files.finish import finish_trial_files
from faar_ray.tracking.mlflow.runs import Child
from faar_ray.tracking.mlflow.store import config_error_on_failure
from faar_ray.tracking.mlflow.sync_thread import INTERRUPT_TIMEOUT_S, Notify, Rejections, SyncThread, shutdown_timeout
from faar_ray.tracking.mlflow.trial_run import Ending, TrialRun, artifact_paths
from faar_ray.tracking.mlflow.writer import SearchStatus, Tracker
from faar_ray.tune.run.jobs import Job

MAX_WAITING = 10_000
"""Updates in memory; epochs beyond are read from the disk when their trial's run is closed."""
LEFT_OPEN: tuple[State, str] = ("PRUNED", "left open by an earlier driver")
"""State and reason of runs that are still open when every trial of the search has ended."""


class MLflowWatcher:
    """Holds what MLflow should show of a search; its thread writes the difference.

    Args:
        open_tracker: opens MLflow with the search's parent run; called in the thread, at once.
        folder: of the run.
        notify: called when MLflow becomes unavailable, when it is available again, and with what was completed.
        timeout: seconds to wait for MLflow at the end; by default of the environment, see `shutdown_timeout`.

    Raises:
        ConfigError: the environment's timeout is no number.
    """

    def __init__(
        self, open_tracker: Callable[[], Tracker], folder: Path, notify: Notify, timeout: float | None = None
    ) -> None:
        self.folder, self.notify = folder, notify
        self._timeout = shutdown_timeout() if timeout is None else timeout
        self._run_ids: dict[str, str] = {}
        self._trunks: dict[str, str] = {}
        """Point -> the trial that its run stands below."""
        self._trials: dict[str, TrialRun] = {}
        """Those of which something is to be written."""
        self._to_check: dict[str, tuple[Job, TrialResult]] = {}
        """Trials that ended under an earlier driver, until MLflow's runs of them were looked at."""
        self._completed: list[str] = []
        self._test_metrics: dict[str, Mapping[str, float]] = {}
        self._ending: tuple[SearchStatus, Path | None, tuple[State, str] | None] | None = None
        self._is_over = False

        self._open, self._opened = open_tracker, threading.Event()
        self._tracker: Tracker | None = None
        self._children: Mapping[str, Child] = {}
        self._error: BaseException | None = None
        self._thread = SyncThread(self._sync, self.waiting, notify)
        self._thread.changed()

    @property
    def tracker(self) -> Tracker:
        """The open tracker; waits until it is.

        Raises:
            ConfigError: MLflow cannot be used.
        """
        self._opened.wait()
        if self._error is not None:
            raise self._error
        assert self._tracker is not None
        return self._tracker

    def waiting(self) -> int:
        """Updates that MLflow lacks: runs to open, epochs, runs to close, test metrics."""
        if self._error is not None:
            return 0
        trials = sum(trial.pending() for trial in list(self._trials.values()))
        return trials + len(self._to_check) + len(self._test_metrics) + (self._ending is not None)

    def backlog(self) -> int:
        """Updates that wait because MLflow is unavailable; 0 while it is available."""
        return self.waiting() if self._thread.unavailable else 0

    def run_id(self, trial_id: str) -> str:
        """MLflow run of a trial, "" while it is not known."""
        return self._run_ids.get(trial_id, "")

    def started(self, job: Job) -> None:
        """A job was handed to Ray: its run is opened, or continued; a prefix has none."""
        if job.role == "prefix":
            return
        self._trials[job.trial_id] = self._trial_run(job)
        self._thread.changed()

    def epoch(self, job: Job, epoch: int, metrics: Mapping[str, float]) -> None:
        """A job finished an epoch."""
        if job.role != "prefix" and self.waiting() < MAX_WAITING:
            self._trials[job.trial_id].add_epoch(epoch, metrics)
        self._thread.changed()

    def ended(self, job: Job, result: TrialResult) -> None:
        """A job ended: its run gets what is missing and is closed."""
        if job.role == "prefix":
            return
        self._trials[job.trial_id].ending = Ending.of(result)
        self._thread.changed()

    def reconcile(self, ended: Sequence[tuple[Job, TrialResult]]) -> None:
        """Complete from the disk, with a notice, what an earlier driver did not write of trials that had ended."""
        self._to_check |= {job.trial_id: (job, result) for job, result in ended}
        self._thread.changed()

    def flush(self, test_metrics: Mapping[str, Mapping[str, float]]) -> None:
        """All trials have ended: finish the files of killed ones, log all, and wait unless MLflow is unavailable.

        Args:
            test_metrics: of the test split, by trial id.
        """
        self._is_over, self._test_metrics = True, dict(test_metrics)
        self._thread.changed()
        self._thread.flush()

    def end_search(
        self, status: SearchStatus, report: Path | None = None, *, open_trials: tuple[State, str] | None = None
    ) -> int:
        """Close the parent run, write the rest and stop; returns how many updates MLflow lacks.

        Args:
            status: of the parent run.
            report: folder that is logged.
            open_trials: state and reason of the trials that an interruption left open; then the wait is short.
        """
        self._ending = (status, report, open_trials)
        self._thread.changed()
        timeout = self._timeout if open_trials is None else min(self._timeout, INTERRUPT_TIMEOUT_S)
        return self._thread.close(timeout)

    def _trial_run(self, job: Job) -> TrialRun:
        files = TrialPaths(self.folder, job.trial_id)
        tags = {"faar_ray.cached": "true"} if job.cached else {}
        if job.role == "point":
            self._trunks[job.trial_id] = job.parent
        return TrialRun(files, job.config, job.params, job.role, tags=tags, title=job.title)

    def _sync(self, rejections: Rejections) -> Iterator[None]:
        """Write everything that MLflow lacks; yields after every update."""
        if self._tracker is None:
            self._open_tracker()
            yield
        if self._tracker is None:
            return

        self._check_earlier_trials()
        is_over = self._is_over  # the driver may set it meanwhile: then the next call finishes files
        for trial in list(self._trials.values()) if is_over else ():
            if trial.ending is not None:
                finish_trial_files(trial.trial, trial.title)  # of a process that was killed
        for name, trial in list(self._trials.items()):
            if not trial.is_open:
                trial.run_id = self.run_id(name)  # an earlier driver's
                trial.below = self.run_id(self._trunks.get(name, ""))
            yield from trial.sync(self._tracker, rejections)
            self._run_ids[name] = trial.run_id
            if trial.is_whole() or (is_over and trial.is_closed):
                del self._trials[name]
        if self._completed:
            self.notify(completed_text(self._completed))
            self._completed = []

        yield from self._log_test_metrics(self._tracker, rejections)
        yield from self._end_search(self._tracker, rejections)

    def _open_tracker(self) -> None:
        try:
            tracker = self._open()
            with config_error_on_failure(tracker.uri):
                self._children = tracker.children()
            for notice in tracker.notices:
                self.notify(notice)
            self._run_ids = {name: child.run_id for name, child in self._children.items()}
            self._tracker = tracker
        except BaseException as error:  # raised where the tracker is needed
            self._error = error
            self._thread.discard()
        self._opened.set()

    def _check_earlier_trials(self) -> None:
        """Take over the trials of an earlier driver of which MLflow or the disk lacks something."""
        for name, (job, result) in list(self._to_check.items()):
            was_trained = TrialPaths(self.folder, name).folder.exists()
            job = dataclasses.replace(job, cached=job.role == "reference" and not was_trained)
            child = self._children.get(name)
            trial = self._trial_run(job)
            trial.ending = Ending.of(result)
            if child is not None and child.is_complete(result):
                trial.is_open = trial.is_closed = True
                trial.run_id = child.run_id
                logged = child.artifacts  # unknown of a run that an older version closed
                trial.logged_artifacts = set(artifact_paths(trial.trial)) if logged is None else logged
            if not trial.is_closed or trial.missing_artifacts():
                self._completed.append(name)
            if name in self._completed or not trial.is_whole():
                self._trials[name] = trial
            del self._to_check[name]

    def _log_test_metrics(self, tracker: Tracker, rejections: Rejections) -> Iterator[None]:
        for name, metrics in list(self._test_metrics.items()):
            run_id, child = self.run_id(name), self._children.get(name)
            if run_id and not (child is not None and child.has(metrics)):
                with rejections:
                    tracker.log_final(run_id, metrics)
            del self._test_metrics[name]
            yield

    def _end_search(self, tracker: Tracker, rejections: Rejections) -> Iterator[None]:
        if self._ending is None:
            return
        status, report, open_trials = self._ending
        with rejections:
            tracker.close_running(*(open_trials or LEFT_OPEN))
        yield
        with rejections:
            tracker.end_search(status, report)
        self._ending = None
        yield


def completed_text(names: Sequence[str]) -> str:
    """Notice of the trials that were completed."""
    listed = ", ".join(names[:8]) + ", ..." * (len(names) > 8)
    return f"MLflow lacked something of {len(names)} ended trials ({listed}); completed from the disk"
