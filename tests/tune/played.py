"""`python -m faar_ray.tune` with trials that are played: real but for Ray, for the training and for the report."""

from __future__ import annotations

import os
import signal
import sys
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any
from unittest.mock import patch

from mlflow import MlflowClient
from mlflow.entities import Run, ViewType
from mlflow.tracking._tracking_service.utils import _artifact_repos_cache

from faar_ray.records import EpochRecord, RankRecord
from faar_ray.storage.run_location import TrialPaths
from faar_ray.tracking.files.epoch_file import write_epochs
from faar_ray.tracking.files.rank_trace import write_rank_trace
from faar_ray.tune import search as search_module
from faar_ray.tune.__main__ import main
from faar_ray.tune.run.jobs import Job
from faar_ray.tune.search_state import SearchState
from tests.tune.conftest import invented

RANKS = [RankRecord(0, 0, 0, "qkv", "shared", 4, 4, "adapter", 1.0, 1.0, (1.0,) * 4, 0, 9)]
Hook = Callable[[Job, int], None]


SEARCH: dict[str, Any] = {
    "budget": {"trials": 2},
    "search": {"startup_trials": 5, "share_prefixes": False},
    "scheduler": {"type": "none"},
}


def nothing(job: Job, epoch: int) -> None:
    """The hook of an undisturbed search."""


def play(state: SearchState, folder: Path, before_epoch: Hook) -> None:
    """Every job of a search, one after another."""
    state.concurrent = 1
    while not state.finished():
        job = state.next_job()
        assert job is not None
        state.resources_acquired(job.trial_id)
        records = []
        for epoch in range(job.config.optim.epochs):
            before_epoch(job, epoch)
            metrics = invented(job, epoch)
            records.append(EpochRecord(epoch, metrics))
            write_epochs(TrialPaths(folder, job.trial_id).epochs, records)
            stopped = bool(state.stop_reason(job.trial_id, epoch, metrics))
            state.epoch(job.trial_id, epoch, metrics)
            if stopped:
                break
        write_rank_trace(TrialPaths(folder, job.trial_id).trace, job.trial_id, RANKS)
        state.ended(job.trial_id)


def tune(*arguments: str, before_epoch: Hook = nothing) -> int:
    """Run the command in the working directory; gives its exit code."""

    def train(search: Any, state: SearchState, folder: Any, mlflow: Any, progress: Any, actor: Any) -> None:
        assert mlflow.tracker.parent
        play(state, folder.path, before_epoch)

    def report(folder: Path, mlflow: Any) -> Path:
        (folder / "report").mkdir(exist_ok=True)
        (folder / "report" / "index.html").write_text("<html>")
        return folder / "report"

    _artifact_repos_cache.clear()  # MLflow's memory of folders, which a process of its own would not have
    with patch.object(search_module, "train", train), patch.object(search_module, "build_report", report):
        return main(["space.yaml", *arguments])


def runs(uri: str) -> dict[str, Run]:
    """All runs by trial id, the parent's by ""; no trial has two."""
    client = MlflowClient(uri)
    ids = [one.experiment_id for one in client.search_experiments(ViewType.ALL)]
    found = client.search_runs(ids, run_view_type=ViewType.ALL)
    by_trial = {run.data.tags.get("faar_ray.trial_id", ""): run for run in found}
    assert len(by_trial) == len(found)
    return by_trial


def ids(uri: str) -> dict[str, str]:
    """Their ids."""
    return {name: run.info.run_id for name, run in runs(uri).items()}


def sqlite(folder: Path) -> str:
    """The database in a folder."""
    return f"sqlite:///{folder}/mlflow.db"


def kill_in(trial_id: str, epoch: int) -> Hook:
    """A hook that kills this process before an epoch, once MLflow has the trial's run and has closed all others."""

    def kill(job: Job, at: int) -> None:
        if (job.trial_id, at) == (trial_id, epoch):
            while [name for name, run in runs(sqlite(Path.cwd())).items() if run.info.status == "RUNNING"] != [
                trial_id,
                "",
            ]:
                time.sleep(0.05)
            os.kill(os.getpid(), signal.SIGKILL)

    return kill


def run(arguments: Sequence[str]) -> int:
    """`python -m tests.tune.played TRIAL EPOCH ...`: killed before this epoch of this trial."""
    return tune(*arguments[2:], before_epoch=kill_in(arguments[0], int(arguments[1])))


if __name__ == "__main__":
    sys.exit(run(sys.argv[1:]))
