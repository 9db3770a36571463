"""A trial's MLflow run, written from what the trial left on disk: complete, whatever was missed while it trained."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import partial
from typing import Any

from faar_ray.records import State, TrialResult
from faar_ray.storage.run_location import TrialPaths
from faar_ray.tracking.files.epoch_file import read_epochs
from faar_ray.tracking.files.finish import finish_trial_files
from faar_ray.tracking.mlflow.writer import Tracker


@dataclass(frozen=True)
class Ending:
    """How a trial ended."""

    state: State
    epochs: int
    """Finished ones; what the disk holds beyond was not judged and is not shown."""
    metrics: Mapping[str, float]
    """Of the last epoch, for a trial that left no file of epochs (a cached reference); `test/...`, once read."""
    reason: str = ""

    @classmethod
    def of(cls, result: TrialResult) -> Ending:
        """As the search wrote it down."""
        return cls(result.state, result.epochs, result.metrics, result.reason)


def endings(tracker: Tracker, run_id: str, files: TrialPaths, title: str, end: Ending) -> list[Callable[[], None]]:
    """The writes that complete and close a run, in order; each bears being repeated, and being left out."""
    tests = {name: value for name, value in end.metrics.items() if name.startswith("test/")}
    told: dict[str, Any] = {"artifacts": [files.adapter], "metrics": tests, "reason": end.reason, "epochs": end.epochs}
    return [
        partial(finish_trial_files, files, title),
        partial(_epochs, tracker, run_id, files, end),
        partial(_trace, tracker, run_id, files, title),
        partial(_sines, tracker, run_id, files, title),
        partial(tracker.end_trial, run_id, end.state, **told),
    ]


def _epochs(tracker: Tracker, run_id: str, files: TrialPaths, end: Ending) -> None:
    known = read_epochs(files) or {end.epochs - 1: dict(end.metrics)}
    for epoch, metrics in known.items():
        if 0 <= epoch < end.epochs:
            tracker.log_epoch(run_id, epoch, metrics)


def _trace(tracker: Tracker, run_id: str, files: TrialPaths, title: str) -> None:
    if files.trace.is_file():
        tracker.log_rank_trace(run_id, files.trace, title)


def _sines(tracker: Tracker, run_id: str, files: TrialPaths, title: str) -> None:
    if files.sines.is_file():
        tracker.log_sine_trace(run_id, files.sines, title)
