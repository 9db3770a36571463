"""The same space through this package's search and through plain Ray Tune with its own OptunaSearch and ASHA.

Both train the same trials (`train.fit`) from the same references; what differs is who asks, who stops, and what Optuna
is told. Compared is what a user could take away: the hypervolume of the front of finished trials over spent epochs.
"""

from __future__ import annotations

import multiprocessing
import os
from collections.abc import Callable, Mapping
from concurrent.futures import ProcessPoolExecutor
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import optuna
import ray.tune
from optuna.trial import TrialState
from ray.tune.experiment import Trial
from ray.tune.schedulers import ASHAScheduler
from ray.tune.search.optuna import OptunaSearch
from rich.console import Console

from faar_ray.bench.stock.compare import OURS, STOCK, Ended, Run
from faar_ray.cluster.ray_cluster import connected
from faar_ray.errors import ConfigError
from faar_ray.records import TrialResult
from faar_ray.storage.run_location import RunLocation
from faar_ray.train.fit import fit
from faar_ray.tune.propose.distributions import distribution, from_optuna, optuna_name, to_optuna
from faar_ray.tune.run.jobs import Job, RunContext
from faar_ray.tune.run.references import References
from faar_ray.tune.run.resolved_search import resolve
from faar_ray.tune.search import run_search
from faar_ray.tune.show.progress import Progress
from faar_ray.tune.space.initial_points import planned
from faar_ray.tune.space.space import SearchSpace

Metrics = Mapping[str, float]


class Listener(Progress):
    """Writes down how trials of our search ended."""

    def __init__(self, space: SearchSpace, run: Run) -> None:
        super().__init__(Console(stderr=True), space.name, ["delta_m"], space.budget.trials, -1)
        self.space, self.run = space, run

    def ended(self, job: Job, result: TrialResult) -> None:
        """A trial, a control or a reference ended."""
        super().ended(job, result)
        if result.role == "trial":
            self.run.ended.append(
                Ended(result.epochs, result.state == "COMPLETE", values_of(self.space, result.metrics))
            )


class StockListener(ray.tune.Callback):
    """The same for plain Ray Tune."""

    def __init__(self, space: SearchSpace, run: Run) -> None:
        self.space, self.run = space, run

    def on_trial_complete(self, iteration: int, trials: list[Trial], trial: Trial, **info: Any) -> None:
        """A trial ended by itself or was stopped."""
        last = trial.last_result
        epochs = int(last["training_iteration"])
        whole = epochs == last["epochs"]
        self.run.ended.append(Ended(epochs, whole, values_of(self.space, last)))


def comparable(space: SearchSpace) -> SearchSpace:
    """A space as both can search it: without replicates, lag and controls, which only one of them has.

    Raises:
        ConfigError: a space that plain Ray Tune with OptunaSearch and ASHA cannot search.
    """
    faults = {
        "search.sampler: must be tpe, OptunaSearch's own": space.search.sampler != "tpe",
        "search.startup_trials: must be 10, that of OptunaSearch's sampler": space.search.startup_trials != 10,
        "scheduler.type: must be asha": space.scheduler.type != "asha",
        "objectives: must be several": len(space.objectives) < 2,
        "parameters: must be without when": any(parameter.when for parameter in space.parameters.values()),
        "resources.workers: must be 1": space.resources.workers != 1,
        "constraints: must be none": bool(space.constraints),
    }
    first = planned(space.search, space.parameters, space.base, space.warm_start.points)
    faults["warm_start.points and priors: must set every parameter"] = any(
        len(p) < len(space.parameters) for p in first
    )
    if found := [text for text, wrong in faults.items() if wrong]:
        raise ConfigError([f"{text}, for this comparison" for text in found])
    search = space.search.model_copy(update={"replicates": None, "lag": None})
    return space.model_copy(update={"search": search, "controls": ()})


def run_both(space: SearchSpace, folder: Path, seeds: int, say: Callable[[str], None]) -> list[Run]:
    """Run both on each seed, one after the other, each in a process of its own.

    Args:
        space: `comparable`.
        folder: for their runs.
        seeds: of the searches, from 0; the trials' seed is the base's.
        say: is told how far it is.
    """
    runs = []
    for seed in range(seeds):
        for name in (OURS, STOCK):
            run = run_alone(space, folder, name, seed)
            runs.append(run)
            whole = sum(trial.finished for trial in run.ended)
            say(f"seed {seed}, {name}: {len(run.ended)} trials, {whole} of them to the end, {run.epochs} epochs")
    return runs


def run_alone(space: SearchSpace, folder: Path, name: str, seed: int) -> Run:
    """One search in a new process: Ray does not take ten clusters after another in one."""
    with ProcessPoolExecutor(1, mp_context=multiprocessing.get_context("spawn")) as pool:
        return pool.submit(run_one, space, folder, name, seed).result()


def run_one(space: SearchSpace, folder: Path, name: str, seed: int) -> Run:
    """One search."""
    run = Run(name, seed)
    search = {OURS: run_ours, STOCK: run_ray_tune_baseline}[name]
    search(_seeded(space, folder, run), run)
    return run


def run_ours(space: SearchSpace, run: Run) -> None:
    """This package's search, whole: journal, MLflow, traces, report."""
    with Listener(space, run) as progress:
        run_search(resolve(space), progress, resume=False)


def run_ray_tune_baseline(space: SearchSpace, run: Run) -> None:
    """Plain Ray Tune; references are those that our search trained."""
    optuna.logging.set_verbosity(optuna.logging.ERROR)
    goals, metric = space.objectives, stopping_metric(space)
    searcher = OptunaSearch(
        {optuna_name(key, parameter): distribution(parameter) for key, parameter in space.parameters.items()},
        metric=[goal.name for goal in goals],
        mode=[goal.goal[:3] for goal in goals],
        points_to_evaluate=[
            to_optuna(space.parameters, point)
            for point in planned(space.search, space.parameters, space.base, space.warm_start.points)
        ],
        seed=space.search.seed,
    )
    scheduler = ASHAScheduler(
        metric=metric,
        mode=space.goal(metric)[:3],
        max_t=space.trial_config({}).optim.epochs,
        grace_period=space.scheduler.min_epochs,
        reduction_factor=space.scheduler.reduction,
    )
    os.environ.pop("TUNE_MAX_PENDING_TRIALS_PG", None)  # our search's own
    need = {"CPU": space.resources.cpus_per_worker, "GPU": space.resources.gpus_per_worker}
    with connected(None):
        ray.tune.run(
            ray.tune.with_resources(
                ray.tune.with_parameters(trained, space=space, references=dict(References(space).val)),
                {name.lower(): amount for name, amount in need.items() if amount},
            ),
            name="stock",
            num_samples=space.budget.trials,
            search_alg=searcher,
            scheduler=scheduler,
            callbacks=[StockListener(space, run)],
            storage_path=str(Path(space.storage.path) / space.name),
            verbose=0,
        )
    study: Any = searcher._ot_study
    told = sum(1 for trial in study.trials if trial.state == TrialState.COMPLETE)
    run.told_finished = told - sum(trial.finished for trial in run.ended)


def trained(held: dict[str, Any], space: SearchSpace, references: Metrics) -> None:
    """A function trainable around the same training loop."""
    params = from_optuna(space.parameters, held)
    config = space.trial_config(params)
    name = ray.tune.get_context().get_trial_id()
    around = RunContext(
        RunLocation(Path(space.storage.path) / space.name), space.resources, space.storage.keep_checkpoints
    )
    spec = replace(around.spec(Job(name, "trial", config, params), references, {}), test=False)
    wanted = {goal.name for goal in space.objectives} | {stopping_metric(space)}
    for record in fit(spec):
        told = {key: value for key, value in record.metrics.items() if key in wanted}
        ray.tune.report(told | {"epochs": config.optim.epochs})


def stopping_metric(space: SearchSpace) -> str:
    """What plain ASHA looks at: one metric; in place of a front the first objective."""
    metric = space.scheduler.metric
    return space.objectives[0].name if metric == "front" else metric


def values_of(space: SearchSpace, metrics: Metrics) -> tuple[float, ...]:
    """The objectives' values, nan where one is missing."""
    return tuple(float(metrics.get(goal.name, np.nan)) for goal in space.objectives)


def _seeded(space: SearchSpace, folder: Path, run: Run) -> SearchSpace:
    """The space of one search."""
    here = {
        "name": f"{run.search}-{run.seed}",
        "search": space.search.model_copy(update={"seed": run.seed}),
        "storage": space.storage.model_copy(update={"path": str(folder / "runs")}),
        "tracking": space.tracking.model_copy(
            update={"uri": f"sqlite:///{folder / 'mlflow.db'}", "experiment": "stock"}
        ),
    }
    return space.model_copy(update=here)
