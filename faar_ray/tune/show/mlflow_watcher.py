"""MLflow's only writer: a thread that works off what the search reports, so that no slow database stops a trial.

The run's folder is the truth and MLflow a view of it: while MLflow is away writes wait, in order; a trial's run is
closed only after everything that its folder holds is in it; what is missing at the search's end, `--resume` completes.
"""

from __future__ import annotations

import dataclasses
import threading
import time
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Literal

from faar_ray.records import State, TrialResult
from faar_ray.storage.run_location import TrialPaths
from faar_ray.tracking.mlflow.mlflow_faults import is_away, needed, reason_of
from faar_ray.tracking.mlflow.trial_run import Ending, endings
from faar_ray.tracking.mlflow.write_queue import Outbox
from faar_ray.tracking.mlflow.writer import Tracker
from faar_ray.tune.run.jobs import Job, format_params

Note = Callable[[str], None]
PATIENCE, HASTE = 120.0, 10.0  # seconds to wait for MLflow at the end of a search, and after Ctrl-C
MOST_WAITING = 10_000  # writes; epochs beyond are taken from the disk when their trial's run is closed


class Pen:
    """A watcher of the search_state that writes to MLflow.

    Args:
        open_tracker: opens MLflow with the search's parent run; called in the thread, at once.
        folder: of the run.
        note: is told when MLflow goes away, when it is back, and what was completed.
    """

    def __init__(self, open_tracker: Callable[[], Tracker], folder: Path, note: Note) -> None:
        self.folder, self.note = folder, note
        self.runs: dict[str, str] = {}
        """trial id -> run id, once written."""
        self._open, self._opened = open_tracker, threading.Event()
        self._tracker: Tracker | None = None
        self._fault: BaseException | None = None
        self._outbox = Outbox("MLflow", is_away, reason_of, note)
        self._outbox.put(self._begin)

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

    def backlog(self) -> int:
        """Writes that wait because MLflow is away; 0 while it is not."""
        return self._outbox.waiting if self._outbox.away else 0

    def waiting(self) -> int:
        """Writes that are still to be made."""
        return self._outbox.waiting

    def started(self, job: Job) -> None:
        """Open the trial's run, or go on with it."""
        self._outbox.put(lambda: self._start(job))

    def epoch(self, job: Job, epoch: int, metrics: Mapping[str, float]) -> None:
        """Log an epoch in one batch; one that is there already is skipped."""
        if self._outbox.waiting < MOST_WAITING:
            at, values = time.time(), dict(metrics)
            self._outbox.put(lambda: self.tracker.log_epoch(self.runs[job.trial_id], epoch, values, at))

    def ended(self, job: Job, result: TrialResult) -> None:
        """Log what is missing, the traces and their pictures, and close the run."""
        self._outbox.put(lambda: self._finish(job, result))

    def tested(self, trial_id: str, metrics: Mapping[str, float]) -> None:
        """Log what the test split gave."""
        self._outbox.put(lambda: self.tracker.log_final(self.runs[trial_id], metrics))

    def reconcile(self, ended: Sequence[tuple[Job, TrialResult]]) -> None:
        """Complete from the disk, and tell, what a driver before had not written of trials that had ended."""
        if ended:
            self._outbox.put(lambda: self._reconcile(ended))

    def run_id(self, trial_id: str) -> str:
        """MLflow run of a trial, "" while it is not known."""
        return self.runs.get(trial_id, "")

    def close_running(self, state: State, reason: str) -> None:
        """Close runs that are still open."""
        self._outbox.put(lambda: _nothing(self.tracker.close_running(self.tracker.parent, state, reason)))

    def settle(self) -> None:
        """Wait until all is written, or MLflow is known to be away."""
        self._outbox.settle()

    def end_search(
        self, state: Literal["FINISHED", "FAILED", "KILLED"], report: Path | None = None, patience: float = PATIENCE
    ) -> int:
        """Close the parent run, write the rest and stop; how many writes could not be made.

        Args:
            state: how the search ended.
            report: folder that is logged.
            patience: seconds to wait for MLflow while it is away.
        """
        self._outbox.put(lambda: self.tracker.end_search(state, report))
        return self._outbox.close(patience)

    def _begin(self) -> None:
        try:
            tracker = self._open()
            with needed(tracker.uri):
                self.runs = tracker.runs_of(tracker.parent)
            self._tracker = tracker
        except BaseException as fault:  # whoever waits for the tracker gets it
            self._fault = fault
            self._outbox.abandon()
        self._opened.set()

    def _start(self, job: Job) -> None:
        before = self.runs.get(job.trial_id)
        run = self.tracker.start_trial(job.trial_id, job.config, job.params, job.role, run_id=before)
        self.runs[job.trial_id] = run
        if job.cached:
            self.tracker.tag(run, {"faar_ray.cached": "true"})

    def _reconcile(self, ended: Sequence[tuple[Job, TrialResult]]) -> None:
        """May be repeated at any point: a trial that is complete by now is not touched again."""
        held = self.tracker.children(self.tracker.parent)
        lacking = [
            (job, result) for job, result in ended if job.trial_id not in held or not held[job.trial_id].holds(result)
        ]
        for job, result in lacking:
            self._complete(job, result)
        if lacking:
            names = ", ".join(job.trial_id for job, _ in lacking[:8]) + ", ..." * (len(lacking) > 8)
            self.note(f"MLflow lacked something of {len(lacking)} ended trials ({names}); completed from the disk")

    def _complete(self, job: Job, result: TrialResult) -> None:
        trained_here = TrialPaths(self.folder, job.trial_id).folder.exists()
        job = dataclasses.replace(job, cached=job.role == "reference" and not trained_here)
        self._outbox.attempt(lambda: self._start(job))
        if job.trial_id in self.runs:
            self._finish(job, result)

    def _finish(self, job: Job, result: TrialResult) -> None:
        run, files = self.runs[job.trial_id], TrialPaths(self.folder, job.trial_id)
        for write in endings(self.tracker, run, files, _title(job), Ending.of(result)):
            self._outbox.attempt(write)


def _title(job: Job) -> str:
    values = format_params(job.params.items())
    return f"{job.trial_id}: {values}" if values else job.trial_id


def _nothing(_: object) -> None:
    return None
