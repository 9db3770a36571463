"""MLflow's only writer: a thread that works off what the search reports, so that no slow database stops a trial."""

from __future__ import annotations

import queue
import threading
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Literal

from faar_ray.records import State, TrialResult
from faar_ray.tracking.mlflow_writer import Tracker
from faar_ray.tune.jobs import Job

Note = Callable[[str], None]


class Pen:
    """A watcher of the book that writes to MLflow.

    Args:
        open_tracker: opens MLflow with the search's parent run; called in the thread, at once.
        folder: of the run.
        complain: is told the first failure of a write, once.
    """

    def __init__(self, open_tracker: Callable[[], Tracker], folder: Path, complain: Note) -> None:
        self.folder, self.complain = folder, complain
        self.runs: dict[str, str] = {}
        """trial id -> run id, once written."""
        self.failures = 0
        self._open, self._opened = open_tracker, threading.Event()
        self._tracker: Tracker | None = None
        self._fault: BaseException | None = None
        self._queue: queue.Queue[Callable[[], None] | None] = queue.Queue()
        self._thread = threading.Thread(target=self._work, name="mlflow", daemon=True)
        self._thread.start()

    @property
    def tracker(self) -> Tracker:
        """The open tracker; waits until it is.

        Raises:
            ConfigError: MLflow cannot be used.
        """
        self._opened.wait()
        if self._fault is not None:
            raise self._fault
        assert self._tracker is not None
        return self._tracker

    def started(self, job: Job) -> None:
        """Open the trial's run, or go on with it."""
        self._queue.put(lambda: self._start(job))

    def epoch(self, job: Job, epoch: int, metrics: Mapping[str, float]) -> None:
        """Log an epoch in one batch; one that is there already is skipped."""
        self._queue.put(lambda: self.tracker.log_epoch(self.runs[job.trial_id], epoch, metrics))

    def ended(self, job: Job, result: TrialResult) -> None:
        """Log the rank trace and its picture, and close the run."""
        self._queue.put(lambda: self._trace(job))
        self._queue.put(lambda: self._end(job, result))

    def tested(self, trial_id: str, metrics: Mapping[str, float]) -> None:
        """Log what the test split gave."""
        self._queue.put(lambda: self.tracker.log_final(self.runs[trial_id], metrics))

    def reconcile(self, ended: Sequence[tuple[Job, TrialResult]]) -> None:
        """Complete what a killed driver had not written of trials that had ended."""
        self._queue.put(lambda: self._reconcile(ended))

    def run_id(self, trial_id: str) -> str:
        """MLflow run of a trial, "" while it is not known."""
        return self.runs.get(trial_id, "")

    def close_running(self, state: State, reason: str) -> None:
        """Close runs that are still open."""
        self._queue.put(lambda: _nothing(self.tracker.close_running(self.tracker.parent, state, reason)))

    def drain(self) -> None:
        """Wait until all is written."""
        self._queue.join()

    def end_search(self, state: Literal["FINISHED", "FAILED", "KILLED"], report: Path | None = None) -> None:
        """Close the parent run, write the rest and stop."""
        self._queue.put(lambda: self.tracker.end_search(state, report))
        self._queue.put(None)
        self._thread.join()

    def _start(self, job: Job) -> None:
        before = self.runs.get(job.trial_id)
        run = self.tracker.start_trial(job.trial_id, job.config, job.params, job.role, run_id=before)
        self.runs[job.trial_id] = run
        if job.cached:
            self.tracker.tag(run, {"faar_ray.cached": "true"})

    def _reconcile(self, ended: Sequence[tuple[Job, TrialResult]]) -> None:
        still_open = self.tracker.running(self.tracker.parent)
        for job, result in ended:
            if job.trial_id not in self.runs or job.trial_id in still_open:
                self._start(job)
                self.tracker.log_epoch(self.runs[job.trial_id], result.epochs - 1, result.metrics)
                self._trace(job)
                self._end(job, result)

    def _trace(self, job: Job) -> None:
        trace = self.folder / "rank_trace" / f"{job.trial_id}.parquet"
        if trace.is_file():
            self.tracker.log_rank_trace(self.runs[job.trial_id], trace, _title(job))

    def _end(self, job: Job, result: TrialResult) -> None:
        run, adapter = self.runs[job.trial_id], self.folder / "trials" / job.trial_id / "adapter.safetensors"
        if job.cached:
            self.tracker.log_epoch(run, result.epochs - 1, result.metrics)
        self.tracker.end_trial(run, result.state, artifacts=[adapter], reason=result.reason)

    def _work(self) -> None:
        try:
            self._tracker = self._open()
            self.runs = self._tracker.runs_of(self._tracker.parent)
        except BaseException as fault:  # whoever waits for the tracker gets it
            self._fault = fault
        self._opened.set()
        while (task := self._queue.get()) is not None:
            if self._fault is None:
                self._write(task)
            self._queue.task_done()
        self._queue.task_done()

    def _write(self, task: Callable[[], None]) -> None:
        try:
            task()
        except Exception as fault:  # a view must not stop the search, whatever is wrong with it
            self.failures += 1
            if self.failures == 1:
                self.complain(f"MLflow cannot be written ({_first_line(fault)}); the search goes on without it")


def _title(job: Job) -> str:
    said = [f"{key} {value:.4g}" if isinstance(value, float) else f"{key} {value}" for key, value in job.params.items()]
    return f"{job.trial_id}: {', '.join(said)}" if said else job.trial_id


def _first_line(fault: Exception) -> str:
    return (str(fault).strip().splitlines() or [type(fault).__name__])[0]


def _nothing(_: object) -> None:
    return None
