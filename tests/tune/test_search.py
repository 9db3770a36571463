"""One real search from the command line, small: Ray, Optuna, MLflow and the files it leaves."""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import optuna
import pytest
import yaml
from mlflow import MlflowClient
from optuna.storages.journal import JournalFileBackend

from faar_ray.records import TrialResult
from faar_ray.report.results import read_results
from faar_ray.tracking.files.rank_trace import read_rank_trace
from tests.commands import run_tune

pytestmark = pytest.mark.timeout(600)  # seconds; a minute where nothing else runs
SEARCH: dict[str, Any] = {
    "references": "auto",
    "controls": [{"method": "lora"}],
    "budget": {"trials": 4},
    "search": {"replicates": {"top": 1, "seeds": 2}},
}


@dataclass(frozen=True)
class Finished:
    """A search that ended."""

    folder: Path
    """Working directory."""
    outcome: dict[str, Any]
    """The JSON line."""
    stderr: str

    @property
    def run(self) -> Path:
        return self.folder / "runs" / "tiny"

    @property
    def results(self) -> dict[str, TrialResult]:
        return {result.trial_id: result for result in read_results(self.run / "results.parquet")}

    @property
    def mlflow(self) -> MlflowClient:
        return MlflowClient(f"sqlite:///{self.folder / 'mlflow.db'}")

    def children(self) -> dict[str, Any]:
        (experiment,) = [e for e in self.mlflow.search_experiments() if e.name == "tiny"]
        runs = self.mlflow.search_runs([experiment.experiment_id])
        parent = self.outcome["parent_run_id"]
        return {r.data.tags["faar_ray.trial_id"]: r for r in runs if r.data.tags.get("mlflow.parentRunId") == parent}


@pytest.fixture(scope="module")
def finished(tmp_path_factory: pytest.TempPathFactory, space_file: Callable[..., Path]) -> Finished:
    folder = tmp_path_factory.mktemp("search")
    space_file(folder / "space.yaml", **SEARCH)
    done = run_tune(folder, "--json", "-q")
    assert done.returncode == 0, done.stderr
    return Finished(folder, json.loads(done.stdout), done.stderr)


def test_every_trial_is_accounted_for(finished: Finished) -> None:
    counts = finished.outcome["trials"]
    assert sum(counts.values()) == 4
    assert counts["failed"] == 0
    roles = [result.role for result in finished.results.values()]
    assert (roles.count("trial"), roles.count("control"), roles.count("reference")) == (4, 1, 2)


def test_the_journal_and_the_results_tell_the_same_states(finished: Finished) -> None:
    backend = JournalFileBackend(str(finished.run / "study.log"))
    study = optuna.load_study(study_name="tiny", storage=optuna.storages.JournalStorage(backend))
    message = {trial.user_attrs["trial_id"]: trial for trial in study.get_trials()}
    for name, trial in message.items():
        result = finished.results[name]
        assert trial.state.name == result.state
        if result.state == "COMPLETE":
            assert trial.values == [result.metrics["delta_m"], result.metrics["trainable_params"]]


def test_the_best_is_complete_and_was_tested_once_it_was_done(finished: Finished) -> None:
    for best in finished.outcome["best"]:
        result = finished.results[best["trial_id"]]
        assert result.state == "COMPLETE"
        assert best["metrics"] == result.metrics
        assert {"test/delta_m", "test/semseg/miou", "test/normals/mean_angle"} <= set(result.metrics)
    pruned = [result for result in finished.results.values() if result.state == "PRUNED"]
    assert not any(name.startswith("test/") for result in pruned for name in result.metrics)


def test_the_replicate_repeats_a_configuration_on_the_next_seed(finished: Finished) -> None:
    (again,) = [result for result in finished.results.values() if result.seed == 1]
    first = finished.results[again.trial_id.replace("-s1", "-s0")]
    assert (again.config_id, again.params, again.epochs) == (first.config_id, first.params, 3)
    assert again.metrics["delta_m"] != first.metrics["delta_m"]


def test_mlflow_holds_a_parent_and_a_closed_child_per_trial(finished: Finished) -> None:
    parent = finished.mlflow.get_run(finished.outcome["parent_run_id"])
    assert (parent.info.status, parent.data.tags["faar_ray.role"]) == ("FINISHED", "search")
    children = finished.children()
    assert set(children) == set(finished.results)
    status = {"COMPLETE": "FINISHED", "PRUNED": "KILLED", "FAIL": "FAILED"}
    for name, run in children.items():
        result = finished.results[name]
        assert run.info.status == status[result.state]
        assert run.info.run_id == result.run_id
        assert run.data.tags["faar_ray.role"] == result.role
        history = finished.mlflow.get_metric_history(run.info.run_id, "train/loss")
        assert [point.step for point in history] == list(range(result.epochs))


def test_mlflow_shows_searched_keys_only_and_keeps_the_rest_as_artifacts(finished: Finished) -> None:
    run = finished.children()["t000-s0"]
    assert run.data.params == {"pdrs.rho_shared": "0.95"}
    artifacts = {entry.path for entry in finished.mlflow.list_artifacts(run.info.run_id)}
    assert artifacts == {"config.yaml", "rank_trace.parquet", "rank_trace.png", "adapter.safetensors"}
    assert run.data.metrics["test/delta_m"] == finished.results["t000-s0"].metrics["test/delta_m"]


def test_rank_traces_are_one_dataset(finished: Finished) -> None:
    table = read_rank_trace(finished.run / "rank_trace")
    traced = set(table.column("trial_id").to_pylist())
    assert {name for name, result in finished.results.items() if result.role != "reference"} <= traced


def test_the_folder_holds_what_the_contract_says_and_no_more(finished: Finished) -> None:
    files = {path.name for path in finished.run.iterdir() if not path.name.startswith(".")}
    assert files == {"space.yaml", "run.json", "study.log", "trials", "rank_trace", "results.parquet", "report"}
    assert not (finished.run / ".ray").exists()
    assert (finished.run / "report" / "index.html").stat().st_size > 1000
    facts = json.loads((finished.run / "run.json").read_text())
    assert facts["parent_run_id"] == finished.outcome["parent_run_id"]
    assert yaml.safe_load((finished.run / "space.yaml").read_text())["budget"]["trials"] == 4


def test_only_the_answer_is_said_when_quiet(finished: Finished) -> None:
    lines = finished.stderr.splitlines()
    assert lines[0] == ""
    assert any("configuration" in line for line in lines[:4])
    assert "mlflow ui" in finished.stderr
    assert "Warning" not in finished.stderr


def test_a_finished_search_resumes_to_the_same_answer_without_training(finished: Finished) -> None:
    traces = {path: path.stat().st_mtime_ns for path in (finished.run / "rank_trace").iterdir()}
    again = run_tune(finished.folder, "--json", "--resume")
    assert again.returncode == 0, again.stderr
    assert json.loads(again.stdout) == finished.outcome
    assert {path: path.stat().st_mtime_ns for path in (finished.run / "rank_trace").iterdir()} == traces


SMALL = ("budget.trials=1", "search.replicates=null", "controls=[]", "--json", "-q")


def test_nothing_feasible_is_exit_4(finished: Finished) -> None:
    none = run_tune(finished.folder, *SMALL, "constraints=['trainable_params <= 10']", "--name", "none")
    assert none.returncode == 4, none.stderr
    assert json.loads(none.stdout)["best"] == []
    assert "none of 1 finished trials satisfies trainable_params <= 10" in none.stderr


@pytest.mark.slow
def test_too_many_failures_are_exit_3_with_step_and_task(finished: Finished) -> None:
    broken = ("base.optim.lr=1e30", "base.optim.warmup_steps=0", "references={semseg: 1, normals: 1}")
    failed = run_tune(finished.folder, *SMALL, *broken, "failure.max_failures=0", "--name", "broken")
    assert failed.returncode == 3, failed.stderr
    assert json.loads(failed.stdout)["trials"] == {"complete": 0, "pruned": 0, "failed": 1}
    assert "failure.max_failures is 0" in failed.stderr
    assert "step" in failed.stderr
