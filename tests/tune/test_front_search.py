"""One real search with `front`, small: trunks, their points, and all that they leave."""

from __future__ import annotations

import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
import yaml
from mlflow import MlflowClient
from safetensors.numpy import load_file

from faar_ray.config.trial import TrialConfig, merge_sections
from faar_ray.records import MEASURED, TrialResult
from faar_ray.report.results import read_results
from faar_ray.report.source import read_search
from faar_ray.storage.object_store import ObjectStore
from faar_ray.storage.run_location import RunLocation, location_of_uri
from faar_ray.tracking.files.epoch_file import read_epochs
from faar_ray.tracking.files.rank_trace import read_rank_trace
from faar_ray.train.checkpoint import checkpoints_of
from faar_ray.train.fit import fit
from faar_ray.train.trial_spec import TrialSpec
from faar_ray.tune.search import trim_trial
from tests.commands import run_tune
from tests.tune.conftest import TINY

pytestmark = pytest.mark.timeout(600)
REFERENCES = {"semseg": 40.0, "normals": 20.0}
OVER: dict[str, Any] = {
    "base": {"ranks": {"kind": "fixed"}, "spectral": {"score_batches": 2}},
    "front": {"sizes": [0.45, 0.7], "forks": {0.45: 0.6, 0.7: 1.0}},
    "budget": {"trials": 2},
    "search": {"replicates": {"top": 1, "seeds": 2}},
    "storage": {"keep_checkpoints": 1},
}


@dataclass(frozen=True)
class Finished:
    """A search that ended."""

    folder: Path
    outcome: dict[str, Any]

    @property
    def place(self) -> RunLocation:
        return RunLocation(self.folder / "runs" / "tiny")

    @property
    def results(self) -> dict[str, TrialResult]:
        return {result.trial_id: result for result in read_results(self.place.path / "results.parquet")}


@pytest.fixture(scope="module")
def finished(tmp_path_factory: pytest.TempPathFactory) -> Finished:
    folder = tmp_path_factory.mktemp("front")
    raw = merge_sections(TINY, OVER) | {"parameters": {"optim.lr": {"min": 1e-3, "max": 1e-2, "prior": 2e-3}}}
    (folder / "space.yaml").write_text(yaml.safe_dump(raw, sort_keys=False))
    done = run_tune(folder, "--json", "-q")
    assert done.returncode == 0, done.stderr
    return Finished(folder, json.loads(done.stdout))


def test_every_trial_and_each_of_its_sizes_is_a_row(finished: Finished) -> None:
    rows = finished.results
    points = [f"t000-s{seed}-{size}" for seed in (0, 1) for size in ("45pct", "70pct")]
    assert list(rows) == ["t000-s0", *points[:2], "t000-s1", *points[2:]]
    assert {row.state for row in rows.values()} == {"COMPLETE"}
    assert [(rows[p].parent, rows[p].epochs, rows[p].inherited) for p in points[:2]] == [
        ("t000-s0", 1, 2), ("t000-s0", 0, 3),
    ]  # fmt: skip
    assert finished.outcome["trials"] == {"complete": 2, "pruned": 0, "failed": 0}
    full = rows["t000-s0"].metrics["params/adapters"]
    assert all(rows[p].metrics["params/adapters"] <= rows[p].params["ranks.budget"] * full for p in points)
    assert all("test/delta_m" in row.metrics for row in rows.values())


def test_the_checkpoint_that_points_forked_from_is_gone_in_the_end(finished: Finished) -> None:
    left = [path.name for path in checkpoints_of(finished.place.trial("t000-s0").folder)]
    assert left == ["epoch_0002.pt"]


def test_it_is_deleted_in_object_storage_too(s3: str) -> None:
    place = location_of_uri(f"{s3}/run")
    names = [f"trials/t000-s0/checkpoints/epoch_000{epoch}.pt" for epoch in (1, 3, 4)]
    for name in names:
        ObjectStore(f"{s3}/run").write(name, b"x")
    trim_trial(place, 2, "t000-s0")  # this machine has no file of the trial
    assert sorted(ObjectStore(f"{s3}/run").files("trials")) == names[1:]


@pytest.mark.parametrize("name", ["t000-s0-45pct", "t000-s0-70pct"])
def test_a_point_is_what_its_config_alone_gives_bit_for_bit(finished: Finished, tmp_path: Path, name: str) -> None:
    paths = finished.place.trial(name)
    config = TrialConfig.resolve(yaml.safe_load((paths.folder / "config.yaml").read_text()))
    spec = TrialSpec(name, config, RunLocation(tmp_path), references=REFERENCES)
    list(fit(spec))

    for own, alone in ((read_epochs(paths), read_epochs(spec.paths)),):
        assert own.keys() == alone.keys() == {0, 1, 2}
        for epoch in own:
            timeless = [{k: v for k, v in m[epoch].items() if not k.startswith(MEASURED)} for m in (own, alone)]
            assert timeless[0] == timeless[1]
    ours, theirs = load_file(paths.adapter), load_file(spec.paths.adapter)
    assert ours.keys() == theirs.keys()
    assert all((ours[key] == theirs[key]).all() for key in ours)
    assert read_rank_trace(paths.trace).equals(read_rank_trace(spec.paths.trace))


def test_a_point_has_an_mlflow_run_below_its_trunks(finished: Finished) -> None:
    client = MlflowClient(f"sqlite:///{finished.folder / 'mlflow.db'}")
    (experiment,) = [one for one in client.search_experiments() if one.name == "tiny"]
    runs = {run.info.run_name: run for run in client.search_runs([experiment.experiment_id])}
    assert {run.info.status for run in runs.values()} == {"FINISHED"}
    for name, result in finished.results.items():
        run = runs[name]
        parent = runs[result.parent].info.run_id if result.parent else finished.outcome["parent_run_id"]
        assert run.data.tags["mlflow.parentRunId"] == parent
        assert run.data.tags["faar_ray.role"] == result.role
        assert run.info.run_id == result.run_id
        assert run.data.metrics["params/adapters"] == result.metrics["params/adapters"]
        assert {file.path for file in client.list_artifacts(run.info.run_id)} >= {"adapter.safetensors", "config.yaml"}
    assert runs["t000-s0"].data.metrics["front/hypervolume"] == finished.results["t000-s0"].metrics["front/hypervolume"]
    assert runs["t000-s0-45pct"].data.params["ranks.budget"] == "0.45"
    assert len(client.get_metric_history(runs["t000-s0-45pct"].info.run_id, "delta_m")) == 3


def test_a_resume_of_what_is_over_changes_nothing(finished: Finished) -> None:
    before = (finished.place.path / "results.parquet").read_bytes()
    again = run_tune(finished.folder, "--json", "-q", "--resume")
    assert again.returncode == 0, again.stderr
    assert [row["trial_id"] for row in json.loads(again.stdout)["best"]] == [
        row["trial_id"] for row in finished.outcome["best"]
    ]
    assert (finished.place.path / "results.parquet").read_bytes() == before


def test_the_report_is_over_points(finished: Finished) -> None:
    page = (finished.place.path / "report" / "index.html").read_text()
    assert "budget 45%" in page and "full size" in page and "t000-s1-70pct" in page
    steps = json.loads((finished.place.path / "report" / "over_time.json").read_text())["steps"]
    assert [step["epochs"] for step in steps] == [4, 8]
    assert read_search(finished.place.path).study_objectives[0].name == "front/hypervolume"
    best = finished.outcome["best"]
    assert all(row["config"]["ranks"]["kind"] in ("fixed", "spectral") for row in best)
