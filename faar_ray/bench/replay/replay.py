"""A search whose trials replay recorded epochs instead of training: all that is real but the training.

A replaying trial computes nothing. It writes its config, its metrics and its rank trace epoch by epoch as a training
one does, but no checkpoint and no adapter.
"""

from __future__ import annotations

import time
from collections.abc import Generator
from pathlib import Path

from faar_ray.bench.replay.recorded import RHO, recorded
from faar_ray.records import EpochRecord
from faar_ray.tracking.files.epoch_file import add_epoch
from faar_ray.tracking.files.finish import complete_trial_files
from faar_ray.tracking.files.trial_files import clear_trial_leftovers, reopen_trial_files, write_config
from faar_ray.tracking.files.trial_pictures import draw_pictures
from faar_ray.train.fit import Epochs
from faar_ray.train.trial_spec import TrialSpec
from faar_ray.tune.execute.trainable import TrialActor
from faar_ray.tune.space.space import SearchSpace


class ReplayActor(TrialActor):
    """Runs trials that replay."""

    def start(self) -> Epochs:
        """The recorded epochs."""
        return replayed(self.spec)


def replay_space(folder: Path, trials: int, seed: int = 0) -> SearchSpace:
    """`search_spaces/rho.yaml` over the rhos that were recorded, with beta beside it, which changes no replay."""
    known = recorded()
    return SearchSpace.model_validate(
        {
            "version": 1,
            "name": "replay",
            "base": {
                "data": {
                    "tasks": ["semseg", "human_parts", "normals"],
                    "train_images": 8,
                    "val_images": 8,
                    "test_images": 8,
                },
                "optim": {"epochs": known.epochs},
            },
            "parameters": {
                RHO: {"min": known.rhos[0], "max": known.rhos[-1], "scale": "log1m", "prior": 0.95},
                "pdrs.beta": {"min": 0.9, "max": 0.995, "scale": "log1m"},
            },
            "objectives": [
                {"name": "delta_m", "goal": "maximize"},
                {"name": "trainable_params", "goal": "minimize"},
            ],
            "references": {"semseg": 34.35, "human_parts": 20.67, "normals": 22.11},
            "search": {"seed": seed, "startup_trials": 10},
            "scheduler": {"min_epochs": 4, "reduction": 4},
            "budget": {"trials": trials},
            "storage": {"path": str(folder / "runs")},
            "tracking": {"uri": f"sqlite:///{folder / 'mlflow.db'}"},
        }
    )


WRITE_MS = "time/replay_ms"
"""A replayed epoch's own time: what a trial writes."""


def replayed(spec: TrialSpec, pace_s: float = 0.0) -> Generator[EpochRecord, None, dict[str, float]]:
    """What `fit` gives, without training.

    Args:
        spec: of the trial.
        pace_s: seconds that an epoch takes, asleep.
    """
    trial = spec.paths
    records, test = recorded().epochs_of(spec.config)
    started = time.perf_counter()
    clear_trial_leftovers(trial)
    write_config(trial, spec.config)
    reopen_trial_files(trial, [])

    try:
        for record in records:
            time.sleep(pace_s)
            add_epoch(trial, record)
            record.metrics[WRITE_MS] = 1000 * (time.perf_counter() - started - pace_s)
            yield record
            started = time.perf_counter()
    finally:
        complete_trial_files(trial)
        draw_pictures(trial, spec.title)
    return test if spec.test else {}
