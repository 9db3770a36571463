"""A real search by a population, small: what its copies inherited, and that all who look at a run see the same."""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import optuna
import pytest
from mlflow import MlflowClient
from optuna.trial import FrozenTrial

from faar_ray.records import TrialResult
from faar_ray.report.results import read_results
from faar_ray.report.source import read_journal_or_none
from faar_ray.storage.run_location import RunLocation
from faar_ray.tracking.files.epoch_file import read_epochs
from faar_ray.tracking.files.rank_trace import read_rank_trace
from tests.commands import run_command

pytestmark = [pytest.mark.slow, pytest.mark.timeout(900)]
RHO = "pdrs.rho_shared"
EPOCHS = 4
SEARCH: dict[str, Any] = {
    "base": {"optim": {"epochs": EPOCHS}},
    "search": {"sampler": "random"},
    "scheduler": {"type": "pbt", "min_epochs": 2, "interval": 1, "population": 4},
    "budget": {"trials": 9},
    "storage": {"keep_checkpoints": 1},
}


@dataclass(frozen=True)
class Finished:
    """A search that ended."""

    folder: Path
    outcome: dict[str, Any]
    results: dict[str, TrialResult]
    trials: dict[str, FrozenTrial]

    @property
    def place(self) -> RunLocation:
        return RunLocation(self.folder / "runs" / "tiny")

    @property
    def copies(self) -> dict[str, dict[str, Any]]:
        """User attributes of the trials that took another one's place."""
        return {name: trial.user_attrs for name, trial in self.trials.items() if "parent" in trial.user_attrs}


@pytest.fixture(scope="module")
def finished(tmp_path_factory: pytest.TempPathFactory, space_file: Callable[..., Path]) -> Finished:
    folder = tmp_path_factory.mktemp("population")
    space_file(folder / "space.yaml", **SEARCH)
    done = run_command("tune", folder, "space.yaml", "--json")
    assert done.returncode == 0, done.stderr
    run = folder / "runs" / "tiny"
    study = read_journal_or_none(run)
    assert study is not None
    results = {result.trial_id: result for result in read_results(run / "results.parquet")}
    trials = {trial.user_attrs["trial_id"]: trial for trial in study.get_trials()}
    return Finished(folder, json.loads(done.stdout.splitlines()[-1]), results, trials)


def test_every_place_was_trained_to_its_end_and_every_loser_names_who_took_its_place(finished: Finished) -> None:
    assert finished.outcome["trials"] == {"complete": 4, "pruned": 2, "failed": 0}
    assert set(finished.results) == set(finished.trials) == {f"t{number:03d}-s0" for number in range(6)}
    for name, attrs in finished.copies.items():
        (loser,) = [
            r for r in finished.results.values() if f"replaced by {name}, a copy of {attrs['parent']}" in r.reason
        ]
        assert (loser.state, loser.epochs) == ("PRUNED", attrs["inherited_epochs"])
        assert finished.trials[loser.trial_id].state is optuna.trial.TrialState.PRUNED
    assert {name: result.epochs for name, result in finished.results.items() if result.state == "COMPLETE"} == {
        name: EPOCHS for name in finished.results if finished.results[name].state == "COMPLETE"
    }


def test_a_copy_holds_the_epochs_of_its_parent_and_shrinks_by_its_own_rho(finished: Finished) -> None:
    assert len(finished.copies) == 2
    for name, attrs in finished.copies.items():
        task_own, parent = finished.place.trial(name), finished.place.trial(attrs["parent"])
        inherited = attrs["inherited_epochs"]
        past, given = list(read_epochs(task_own).items()), list(read_epochs(parent).items())
        assert past[:inherited] == given[:inherited]
        assert [epoch for epoch, _ in past] == list(range(finished.results[name].epochs))
        rows, theirs = (read_rank_trace(place.trace).to_pylist() for place in (task_own, parent))
        ranks = [[row["rank"] for row in some if row["epoch"] < inherited] for some in (rows, theirs)]
        assert ranks[0] == ranks[1]
        value = float(finished.results[name].params[RHO])
        of_parent = float(finished.results[attrs["parent"]].params[RHO])
        assert value != of_parent
        at = {epoch: {row["rho"] for row in rows if row["epoch"] == epoch} - {1.0} for epoch in range(len(past))}
        assert all(at[epoch] == {value} for epoch in at if epoch >= inherited)
        assert not any(value in at[epoch] for epoch in range(inherited))


def test_mlflow_shows_copies_with_their_past_and_losers_as_killed(finished: Finished) -> None:
    client = MlflowClient(f"sqlite:///{finished.folder / 'mlflow.db'}")
    (experiment,) = [e for e in client.search_experiments() if e.name == "tiny"]
    runs = {r.data.tags.get("faar_ray.trial_id"): r for r in client.search_runs([experiment.experiment_id])}
    for name, result in finished.results.items():
        assert runs[name].info.status == {"COMPLETE": "FINISHED", "PRUNED": "KILLED"}[result.state]
        assert runs[name].info.run_id == result.run_id
        assert runs[name].data.params == {RHO: str(result.params[RHO])}
        history = client.get_metric_history(result.run_id, "delta_m")
        assert [point.step for point in history] == list(range(result.epochs))


def test_a_report_an_export_and_a_resume_take_it_as_any_other_run(finished: Finished) -> None:
    assert (finished.place.path / "report" / "index.html").stat().st_size > 1000
    best = finished.outcome["best"][0]["trial_id"]
    pattern = run_command("export", finished.folder, f"tiny/{best}", "--rank-pattern", "--out", "ranks.yaml")
    assert pattern.returncode == 0, pattern.stderr
    assert (finished.folder / "ranks.yaml").stat().st_size > 0
    resumed = run_command("tune", finished.folder, "space.yaml", "--json", "--resume", "-q")
    assert resumed.returncode == 0, resumed.stderr
    assert json.loads(resumed.stdout) == finished.outcome
