"""Tune pauses, resumes and exploits (PBT) real trials: each goes on at the right epoch with the right ranks."""

from __future__ import annotations

import copy
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from ray import tune
from ray.tune.experiment import Trial
from ray.tune.schedulers import FIFOScheduler, PopulationBasedTraining

from faar_ray.cluster import ray_cluster
from faar_ray.cluster.capacity import Node
from faar_ray.cluster.ray_cluster import connected
from faar_ray.config.trial import TrialConfig
from faar_ray.records import MEASURED, EpochRecord
from faar_ray.storage.run_location import trial_paths
from faar_ray.tracking.files.rank_trace import read_rank_trace
from faar_ray.train.checkpoint import checkpoints_of, read_checkpoint, records_from_plain
from faar_ray.train.fit import fit_spec
from faar_ray.tune.execute.ray_tune import COORDINATOR_RESOURCES
from faar_ray.tune.execute.trainable import TrialActor

pytestmark = [pytest.mark.timeout(600), pytest.mark.slow]
RAW: dict[str, Any] = {
    "data": {"tasks": ["semseg", "normals"], "image_size": 32, "train_images": 32, "val_images": 16, "test_images": 16},
    "backbone": {"pretrained": False},
    "ranks": {"init_rank": 6},
    "pdrs": {"rho_shared": 0.9},
    "optim": {"epochs": 4, "batch_size": 8, "warmup_steps": 2, "precision": "fp64"},
}


@pytest.fixture(scope="module")
def four_cpus() -> Iterator[None]:
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(ray_cluster, "this_machine", lambda: Node(4, 0))
        with connected(None):
            yield


def spec(folder: Path, name: str, workers: int = 1, **dotted: Any) -> dict[str, Any]:
    return {
        "trial_id": name,
        "config": TrialConfig.resolve(RAW, **dotted).model_dump(mode="json"),
        "run": {"path": str(folder), "uri": ""},
        "references": {"semseg": 40.0, "normals": 20.0},
        "test_references": None,
        "test": False,
        "workers": workers,
        "threads": 1,
        "gpus_per_worker": 0,
        "keep_checkpoints": 1,
    }


def run(specs: list[dict[str, Any]], scheduler: FIFOScheduler, folder: Path) -> list[Trial]:
    resources = [{"CPU": 1.0}] if specs[0]["workers"] == 1 else [COORDINATOR_RESOURCES]
    analysis = tune.run(
        tune.with_resources(TrialActor, tune.PlacementGroupFactory(resources)),
        config=tune.grid_search(specs) if len(specs) > 1 else specs[0],
        scheduler=scheduler,
        storage_path=str(folder / "ray"),
        reuse_actors=True,
        verbose=0,
    )
    trials: list[Trial] = analysis.trials
    return trials


def recorded(given: dict[str, Any]) -> list[EpochRecord]:
    return records_from_plain(read_checkpoint(checkpoints_of(trial_paths(given).folder)[-1])["records"])


class PauseOnce(FIFOScheduler):
    """Pauses every trial after its second epoch and lets it go on when nothing else is to do."""

    def __init__(self) -> None:
        super().__init__()  # type: ignore[no-untyped-call]
        self.paused: set[str] = set()

    def on_trial_result(self, tune_controller: Any, trial: Trial, result: dict[str, Any]) -> str:
        if result["epoch"] == 1 and trial.trial_id not in self.paused:
            self.paused.add(trial.trial_id)
            return str(self.PAUSE)
        return str(self.CONTINUE)


class SameTrial(PopulationBasedTraining):
    """Tune's PBT takes the better trial's whole config; which trial it is, and where, stays."""

    def _get_new_config(self, trial: Trial, trial_to_clone: Trial) -> tuple[dict[str, Any], dict[str, Any]]:
        new, operations = super()._get_new_config(trial, trial_to_clone)
        return new | {key: trial.config[key] for key in ("trial_id", "run")}, operations


def with_half_the_coverage(config: dict[str, Any]) -> dict[str, Any]:
    new = copy.deepcopy(config)
    new["config"]["pdrs"]["rho_shared"] = 0.5
    return new


@pytest.mark.usefixtures("four_cpus")
@pytest.mark.parametrize("workers", [1, 2])
def test_a_paused_trial_goes_on_as_if_it_had_not_been(workers: int, tmp_path: Path) -> None:
    given = spec(tmp_path, "paused", workers)
    scheduler = PauseOnce()
    (trial,) = run([given], scheduler, tmp_path)
    assert len(scheduler.paused) == 1
    assert (trial.status, trial.last_result["epoch"], trial.last_result["training_iteration"]) == ("TERMINATED", 3, 4)
    whole = list(fit_spec(spec(tmp_path, "whole")))
    found = recorded(given)
    assert [[row.rank for row in record.ranks] for record in found] == [[row.rank for row in e.ranks] for e in whole]
    unmeasured = [{k: v for k, v in r.metrics.items() if not k.startswith(MEASURED)} for r in found]
    assert unmeasured == [
        {k: pytest.approx(v, rel=1e-8) for k, v in r.metrics.items() if not k.startswith(MEASURED)} for r in whole
    ]


@pytest.mark.usefixtures("four_cpus")
def test_an_exploited_trial_takes_ranks_and_past_of_the_better_one_and_its_own_changed_key(tmp_path: Path) -> None:
    specs = [
        spec(tmp_path, "strong", **{"optim.lr": 5e-3}),
        spec(tmp_path, "weak", **{"optim.lr": 1e-9, "optim.decoder_lr": 1e-9}),
    ]

    scheduler = SameTrial(
        time_attr="training_iteration",
        metric="metrics/delta_m",
        mode="max",
        perturbation_interval=2,
        quantile_fraction=0.5,
        hyperparam_mutations={"unused": lambda: 0},
        custom_explore_fn=with_half_the_coverage,
        synch=True,
    )
    run(specs, scheduler, tmp_path)
    strong, weak = map(recorded, specs)
    assert scheduler._num_perturbations >= 1
    assert weak[:2] == strong[:2]  # the past of the better one, to the clock's last digit
    assert [row.rank_before for row in weak[2].ranks] == [row.rank for row in strong[1].ranks]
    assert {row.rho for row in weak[3].ranks if row.task == "shared"} == {0.5}
    assert {row.rho for row in strong[3].ranks if row.task == "shared"} == {0.9}
    trace = read_rank_trace(trial_paths(specs[1]).trace)
    assert set(trace["trial_id"].to_pylist()) == {"weak"}
    assert trace.num_rows == sum(len(record.ranks) for record in weak)
