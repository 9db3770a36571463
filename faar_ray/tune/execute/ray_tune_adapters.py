"""The search state as Ray Tune's searcher, scheduler and callback: it proposes trials, stops them, records results."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from ray.tune import Callback
from ray.tune.experiment import Trial
from ray.tune.schedulers import FIFOScheduler
from ray.tune.search import Searcher

from faar_ray import interrupts
from faar_ray.errors import StorageError
from faar_ray.storage.atomic import storage_error_on_oserror
from faar_ray.train.trial_spec import TrialSpec
from faar_ray.tune.execute.failures import reason_of_failure
from faar_ray.tune.execute.node_loss import NodeLossTolerantTrial
from faar_ray.tune.run.jobs import Job
from faar_ray.tune.search_state import SearchState

FINISHED: Any = Searcher.FINISHED  # a marker that Ray's annotations do not know
Spec = Callable[[Job], TrialSpec]


class JobSearcher(Searcher):
    """Hands out the next job of a search as a Ray trial.

    Args:
        state: of the search.
        spec: gives the actor's config for a job.
        folder: of the run.
    """

    def __init__(self, state: SearchState, spec: Spec, folder: Path) -> None:
        super().__init__()
        self.state, self.spec, self.folder = state, spec, folder

    def suggest(self, trial_id: str) -> dict[str, Any] | None:
        """The next job's spec, None while there is none, or FINISHED."""
        with abort_on_storage_error(self.state, self.folder):
            if (job := self.state.next_job()) is not None:
                return self.spec(job).to_dict()
        return FINISHED if self.state.finished() else None

    def on_trial_complete(self, trial_id: str, result: dict[str, Any] | None = None, error: bool = False) -> None:
        """Nothing: Ray calls the callback next, which gets the reason too."""

    def save(self, checkpoint_path: str) -> None:
        """Nothing: all state is in the journal."""

    def restore(self, checkpoint_path: str) -> None:
        """Nothing: see `save`."""


class StopScheduler(FIFOScheduler):
    """Stops a trial when the search state has a reason to; otherwise first in, first out."""

    def __init__(self, state: SearchState) -> None:
        super().__init__()  # type: ignore[no-untyped-call]
        self.state = state

    def on_trial_add(self, tune_controller: Any, trial: Trial) -> None:
        """Change the class of Ray's trial, so that the death of its machine is no failure of it."""
        trial.__class__, NodeLossTolerantTrial.controller = NodeLossTolerantTrial, tune_controller
        super().on_trial_add(tune_controller, trial)

    def on_trial_result(self, tune_controller: Any, trial: Trial, result: dict[str, Any]) -> str:
        """Whether to stop after a finished epoch (Ray does not ask after a trial's last one)."""
        metrics = {key.removeprefix("metrics/"): value for key, value in result.items() if key.startswith("metrics/")}
        stop = self.state.stop_reason(trial.config["trial_id"], result["epoch"], metrics)
        return str(FIFOScheduler.STOP if stop else FIFOScheduler.CONTINUE)


class StateCallback(Callback):
    """Records what happened in the search state; a journal that cannot be written ends the search, not the trial.

    Args:
        state: of the search.
        folder: of the run.
    """

    def __init__(self, state: SearchState, folder: Path) -> None:
        self.state, self.folder = state, folder

    def on_step_begin(self, iteration: int, trials: list[Trial], **info: Any) -> None:
        """A step of Ray Tune's loop."""
        interrupts.check()

    def on_trial_start(self, iteration: int, trials: list[Trial], trial: Trial, **info: Any) -> None:
        """The trial got its actor, a new one or that of a trial before."""
        self.state.resources_acquired(trial.config["trial_id"])

    def on_trial_recover(self, iteration: int, trials: list[Trial], trial: Trial, **info: Any) -> None:
        """The trial's actor died, and Ray will try again."""
        self.state.resources_released(trial.config["trial_id"])

    def on_trial_result(
        self, iteration: int, trials: list[Trial], trial: Trial, result: dict[str, Any], **info: Any
    ) -> None:
        """An epoch, or the error that ends the trial."""
        name = trial.config["trial_id"]
        for note in result.get("notes", ()):
            self.state.notify(f"{name}: {note}")
        if "storage" in result:
            self.state.abort(StorageError(result["storage"]))
        if "epoch" in result:
            with abort_on_storage_error(self.state, self.folder):
                self.state.epoch(name, result["epoch"], result["metrics"])
        self.state.record_test_metrics(name, result.get("test", {}))
        if result.get("prefix"):
            self.state.prefix_trained(name)
        if "error" in result:
            self.state.failed(name, result["error"])

    def on_trial_complete(self, iteration: int, trials: list[Trial], trial: Trial, **info: Any) -> None:
        """The trial ended by itself or was stopped."""
        with abort_on_storage_error(self.state, self.folder):
            self.state.ended(trial.config["trial_id"])

    def on_trial_error(self, iteration: int, trials: list[Trial], trial: Trial, **info: Any) -> None:
        """The trial failed more often than it may."""
        self.state.failed(trial.config["trial_id"], failure_of(trial))
        with abort_on_storage_error(self.state, self.folder):
            self.state.ended(trial.config["trial_id"])


@contextmanager
def abort_on_storage_error(state: SearchState, folder: Path) -> Iterator[None]:
    """Abort the search where the block cannot write its files; Ray would count the error as the trial's failure."""
    try:
        with storage_error_on_oserror(folder):
            yield
    except StorageError as fault:
        state.abort(fault)


def failure_of(trial: Trial) -> str:
    """Why a trial failed, in one sentence."""
    path = trial.error_file
    return reason_of_failure(Path(path).read_text() if path else "", trial.num_failures)
