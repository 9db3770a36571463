"""One trial's MLflow run: what it should hold, and the writes that bring it there.

What it should hold comes from the trial's folder and from the epochs that the driver received: on a cluster with
object storage the driver's folder lacks the files of a running trial.
"""

from __future__ import annotations

import time
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from faar_ray.config.trial import TrialConfig
from faar_ray.records import Role, State, TrialResult
from faar_ray.storage.run_location import TrialPaths
from faar_ray.tracking.files.epoch_file import read_epochs
from faar_ray.tracking.mlflow.runs import ARTIFACTS_TAG
from faar_ray.tracking.mlflow.sync_thread import Rejections
from faar_ray.tracking.mlflow.writer import Tracker


@dataclass(frozen=True)
class Ending:
    """How a trial ended."""

    state: State
    epochs: int
    """Finished ones, inherited ones too; what the disk holds beyond was not judged and is not shown."""
    metrics: Mapping[str, float]
    """Of the last epoch, for a trial that left no file of epochs (a cached reference); `test/...`, once read."""
    reason: str = ""

    @classmethod
    def of(cls, result: TrialResult) -> Ending:
        """As the search recorded it."""
        return cls(result.state, result.reached, result.metrics, result.reason)


@dataclass
class TrialRun:
    """A trial's run as it should be, and how much of it is written."""

    trial: TrialPaths
    config: TrialConfig
    params: Mapping[str, Any]
    role: Role = "trial"
    run_id: str = ""
    """Of the run to continue, then of the run; "" before there is one."""
    tags: Mapping[str, str] = field(default_factory=dict)
    title: str = ""
    """Of its pictures."""
    below: str = ""
    """Run of the trial that this one stands below; "" for the search's."""
    ending: Ending | None = None
    """None while it runs."""
    is_open: bool = False
    is_closed: bool = False
    logged_artifacts: set[str] = field(default_factory=set)
    _epochs: dict[int, tuple[float, Mapping[str, float]]] = field(default_factory=dict)
    """Epoch -> when it ended and its metrics, until they are written."""

    def add_epoch(self, epoch: int, metrics: Mapping[str, float]) -> None:
        """The trial finished an epoch."""
        self._epochs[epoch] = (time.time(), dict(metrics))

    def pending(self) -> int:
        """Updates that MLflow lacks: the run itself, each epoch, the end."""
        return (not self.is_open) + len(self._epochs) + (self.ending is not None and not self.is_closed)

    def sync(self, tracker: Tracker, rejections: Rejections) -> Iterator[None]:
        """Write what the run lacks, in order; yields after every update.

        A run is closed only after everything of its folder is in it. Files that appear later (the pictures of a trial
        that was stopped) are added by the next call.

        Raises:
            Exception: MLflow is unavailable; the next call continues.
        """
        ending = self.ending  # before the epochs are looked at: none comes after the end
        if not self.is_open:
            with rejections:
                self.open(tracker)
            self.is_open = True
            yield

        if not self.run_id:  # it was rejected
            self._epochs.clear()
            self.is_closed = ending is not None
            return

        while self._epochs:
            self._log_pending_epochs(tracker, rejections)
            yield

        if ending is not None:
            yield from self._close(tracker, ending, rejections)

    def open(self, tracker: Tracker) -> None:
        """Create the run, or continue it."""
        self.run_id = tracker.start_trial(
            self.trial.trial_id,
            self.config,
            self.params,
            self.role,
            self.run_id or None,
            tags=self.tags,
            below=self.below,
        )
        self.is_open = True

    def is_whole(self) -> bool:
        """Whether no file can follow; a run that is closed may still lack the pictures of a stopped trial."""
        if not self.is_closed:
            return False
        pictures = {"rank_trace.png"} | ({"sinewich_trace.png"} if self.trial.sines.exists() else set())
        return pictures <= self.logged_artifacts or not self.trial.folder.exists()

    def missing_artifacts(self) -> dict[str, Path]:
        """Files on the disk that MLflow lacks, by their names there."""
        files = artifact_paths(self.trial)
        return {name: path for name, path in files.items() if name not in self.logged_artifacts and path.is_file()}

    def _log_pending_epochs(self, tracker: Tracker, rejections: Rejections) -> None:
        pending = self._epochs.copy()  # the driver adds epochs meanwhile
        with rejections:
            tracker.log_epochs(
                self.run_id,
                {epoch: metrics for epoch, (_, metrics) in pending.items()},
                {epoch: ended_at for epoch, (ended_at, _) in pending.items()},
            )
        for epoch in pending:
            del self._epochs[epoch]

    def _close(self, tracker: Tracker, ending: Ending, rejections: Rejections) -> Iterator[None]:
        if not self.is_closed:
            with rejections:
                tracker.log_epochs(self.run_id, self._finished_epochs(ending))
            yield

        artifacts = {} if tracker.artifact_fault else self.missing_artifacts()
        for name, path in artifacts.items():
            with rejections:
                tracker.log_file(self.run_id, path, name)
            self.logged_artifacts.add(name)
            yield

        tags = {ARTIFACTS_TAG: " ".join(sorted(self.logged_artifacts))}
        if not self.is_closed:
            tests = {name: value for name, value in ending.metrics.items() if name.startswith("test/")}
            tags["faar_ray.epochs"] = str(ending.epochs)
            with rejections:
                tracker.end_trial(self.run_id, ending.state, metrics=tests, reason=ending.reason, tags=tags)
            self.is_closed = True
            yield
        elif artifacts:
            with rejections:
                tracker.tag(self.run_id, tags)
            yield

    def _finished_epochs(self, ending: Ending) -> dict[int, dict[str, float]]:
        epochs, last = read_epochs(self.trial), ending.epochs - 1
        epochs[last] = dict(ending.metrics) | epochs.get(last, {})  # all of the result, whatever the disk has
        return {epoch: metrics for epoch, metrics in epochs.items() if 0 <= epoch < ending.epochs}


def artifact_paths(trial: TrialPaths) -> dict[str, Path]:
    """Files of a trial by their names in MLflow (DESIGN.md, MLflow); not all of them need exist."""
    return {
        "rank_trace.parquet": trial.trace,
        "rank_trace.png": trial.rank_picture,
        "sinewich_trace.parquet": trial.sines,
        "sinewich_trace.png": trial.sine_picture,
        "adapter.safetensors": trial.adapter,
    }
