"""Plain Ray Tune on the same task, written as its users write it: OptunaSearch (TPE, two objectives) and ASHA over the
initial rank, rho and the learning rate. Only a trial's training and its single-task references are this package's.
"""

from __future__ import annotations

import contextlib
import functools
import json
import logging
import sys
import tempfile
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import optuna
import ray
from ray import tune
from ray.tune.schedulers import ASHAScheduler
from ray.tune.search.optuna import OptunaSearch

from faar_ray.bench.front.rows import SIZE, VAL
from faar_ray.storage.atomic import atomic_write
from faar_ray.storage.run_location import RunLocation
from faar_ray.train.fit import fit
from faar_ray.train.trial_spec import TrialSpec
from faar_ray.train.weights import weights_of
from faar_ray.tune.run.references import References
from faar_ray.tune.space.space import SearchSpace

KEYS = {"init_rank": "ranks.init_rank", "rho": "pdrs.rho_shared", "lr": "optim.lr"}
PARAMETERS = {
    "init_rank": tune.choice([2, 4, 8, 16]),
    "rho": tune.uniform(0.3, 0.99),
    "lr": tune.loguniform(5e-4, 8e-3),
}
MIN_EPOCHS, REDUCTION = 2, 3


class Log(tune.Callback):
    """Keeps every reported epoch, in order: each is an epoch spent, and a model that could be kept."""

    def __init__(self) -> None:
        self.epochs: list[dict[str, Any]] = []

    def on_trial_result(
        self, iteration: int, trials: Sequence[Any], trial: Any, result: Mapping[str, Any], **info: Any
    ) -> None:
        """An epoch of a trial."""
        self.epochs.append({"trial": trial.trial_id, "config": result["config"], VAL: result[VAL], SIZE: result[SIZE]})


def search(space: SearchSpace, seed: int, trials: int, out: Path) -> None:
    """Run one search, and write its epochs down as JSON once it is over.

    Args:
        space: its base is that of the trainings; references must be in the cache, or are numbers.
        seed: of the search.
        trials: how many are started.
        out: the file.
    """
    optuna.logging.set_verbosity(optuna.logging.ERROR)
    references = References(space, weights=weights_of([space.trial_config({})]))
    if references.jobs():
        raise RuntimeError("the single-task references are not trained yet")

    log = Log()
    ray.init(include_dashboard=False, log_to_driver=False, logging_level=logging.ERROR)
    with tempfile.TemporaryDirectory(prefix="faar-ray-stock-", ignore_cleanup_errors=True) as scratch:
        train = functools.partial(trainable, space=space, references=dict(references.val), folder=Path(scratch))
        tuner = tune.Tuner(
            tune.with_resources(train, {"cpu": 1}),
            param_space=PARAMETERS,
            tune_config=tune.TuneConfig(
                search_alg=OptunaSearch(metric=[VAL, SIZE], mode=["max", "min"], seed=seed),
                scheduler=ASHAScheduler(
                    metric=VAL,
                    mode="max",
                    max_t=space.trial_config({}).optim.epochs,
                    grace_period=MIN_EPOCHS,
                    reduction_factor=REDUCTION,
                ),
                num_samples=trials,
            ),
            run_config=tune.RunConfig(name="stock", storage_path=scratch, callbacks=[log], verbose=0),
        )
        with contextlib.redirect_stdout(sys.stderr):
            results = tuner.fit()
        ray.shutdown()
    if results.errors:
        raise RuntimeError(f"{len(results.errors)} trials of plain Ray Tune failed, the first: {results.errors[0]}")
    with atomic_write(out) as file:
        file.write_text(json.dumps({"seed": seed, "trials": trials, "epochs": log.epochs}, indent=1))


def trainable(config: dict[str, Any], *, space: SearchSpace, references: Mapping[str, float], folder: Path) -> None:
    """Train one trial and report its epochs: a function trainable."""
    trial = space.trial_config({"ranks.kind": "pdrs", **{KEYS[name]: value for name, value in config.items()}})
    name = tune.get_context().get_trial_id()
    for record in fit(TrialSpec(name, trial, RunLocation(folder / "trials"), references=references)):
        tune.report({VAL: record.metrics[VAL], SIZE: record.metrics[SIZE]})
