"""Trials that replay recorded epochs, and the actor that runs them at a pace.

Hundreds of these actors run on one machine, each in a process of its own: nothing in this file may import torch.
"""

from __future__ import annotations

import time
from collections.abc import Generator
from typing import Any

from ray import tune

from faar_ray.bench.replay.recorded import recorded
from faar_ray.records import EpochRecord
from faar_ray.tracking.files.epoch_file import add_epoch
from faar_ray.tracking.files.finish import complete_trial_files
from faar_ray.tracking.files.trial_files import clear_trial_leftovers, reopen_trial_files, write_config
from faar_ray.tracking.files.trial_pictures import draw_pictures
from faar_ray.train.trial_spec import TrialSpec

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


class PacedActor(tune.Trainable):
    """Stands in for `tune.trainable.TrialActor`, and answers as it does."""

    pace_s = 0.0
    """Seconds that an epoch takes."""

    def setup(self, config: dict[str, Any]) -> None:
        """Take a new trial."""
        self.spec = TrialSpec.from_dict(config)
        self.last = self.spec.config.optim.epochs - 1
        self.epochs = replayed(self.spec, self.pace_s)

    def reset_config(self, new_config: dict[str, Any]) -> bool:
        """Take the next."""
        self.cleanup()
        self.setup(new_config)
        return True

    def cleanup(self) -> None:
        """End the trial before."""
        self.epochs.close()

    def step(self) -> dict[str, Any]:
        """One epoch; after the last one the test split's metrics too."""
        record = next(self.epochs)
        out: dict[str, Any] = {"trial": self.spec.trial_id, "epoch": record.epoch, "metrics": dict(record.metrics)}
        out |= {"notes": [], "done": record.epoch == self.last}
        if out["done"]:
            try:
                next(self.epochs)
            except StopIteration as end:
                out["test"] = dict(end.value)
        return out


def at_pace(seconds: float) -> type[PacedActor]:
    """The actor whose epochs take so long."""
    return type("PacedActor", (PacedActor,), {"pace_s": seconds})
