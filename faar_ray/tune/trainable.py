"""A trial inside a Tune actor: one step is one epoch of `train.fit`.

One-worker trials train in the actor itself, and the next trial reuses the actor (about 1 s instead of a new process).
The trial finds its own checkpoint in its folder, so Ray needs none: a retry, a resumed search and a first run are the
same call. `epochs_of` is the seam: a runtime with many workers gives the same generator of epochs.
"""

from __future__ import annotations

import math
from collections.abc import Generator, Iterator, Mapping
from typing import Any

import torch
from ray import tune

from faar_ray.config import TrialConfig
from faar_ray.errors import FaarRayError, StorageError
from faar_ray.records import EpochRecord
from faar_ray.tracking.place import place_of_trial
from faar_ray.train.fit import fit, read_test
from faar_ray.tune.notes import notes


def epochs_of(spec: Mapping[str, Any]) -> Iterator[EpochRecord]:
    """The epochs of a trial, recorded ones first (at once), then trained ones."""
    place = place_of_trial(spec)
    return fit(
        TrialConfig.model_validate(spec["config"]),
        place.folder,
        trial_id=spec["trial_id"],
        trace=place.trace,
        references=spec["references"],
        keep_checkpoints=spec["keep_checkpoints"],
        twin=place.twin,
    )


class TrialActor(tune.Trainable):
    """Runs one trial after another; each result is `{"trial": id, "epoch": e, "metrics": {...}, "done": bool}`,
    the last one of a trial that was not stopped holds `test` as well.

    What a person must mend (a config, the data, a loss that is not finite) ends the trial with `error` in the result:
    trying again would fail again. A storage that gave out ends it with `storage`, and the search, for it is no trial's
    fault. Everything else raises, and Ray tries again.
    """

    def setup(self, config: dict[str, Any]) -> None:
        """Take a new trial; it starts with the first step."""
        self.spec = config
        self.last = TrialConfig.model_validate(config["config"]).optim.epochs - 1
        self.epochs: Iterator[EpochRecord] | None = None
        torch.set_num_threads(config["threads"])
        notes()

    def reset_config(self, new_config: dict[str, Any]) -> bool:
        """Let go of the trial before and take the next."""
        self.cleanup()
        self.setup(new_config)
        return True

    def cleanup(self) -> None:
        """Close the training loop."""
        if isinstance(self.epochs, Generator):
            self.epochs.close()
        self.epochs = None

    def step(self) -> dict[str, Any]:
        """Train (or replay) one epoch."""
        return self._guarded() | {"notes": notes().taken()}

    def _guarded(self) -> dict[str, Any]:
        try:
            return self._epoch()
        except StorageError as fault:
            return {"trial": self.spec["trial_id"], "storage": str(fault), "done": True}
        except FaarRayError as fault:
            return {"trial": self.spec["trial_id"], "error": str(fault), "done": True}

    def _epoch(self) -> dict[str, Any]:
        if self.epochs is None:
            self.epochs = epochs_of(self.spec)
        record = next(self.epochs)
        out: dict[str, Any] = {"trial": self.spec["trial_id"], "epoch": record.epoch, "metrics": dict(record.metrics)}
        if not math.isfinite(record.metrics.get("delta_m", 0.0)):
            return out | {"error": f"delta_m is {record.metrics['delta_m']} after epoch {record.epoch}", "done": True}
        if record.epoch < self.last:
            return out | {"done": False}
        for _ in self.epochs:  # lets fit() write what it writes at the very end
            pass
        return out | {"test": self._test(), "done": True}

    def _test(self) -> dict[str, float]:
        """The test split, read once, while model code and data are at hand; the search never looks at it."""
        config = TrialConfig.model_validate(self.spec["config"])
        return read_test(config, place_of_trial(self.spec).folder, self.spec["test_references"])

    def save_checkpoint(self, checkpoint_dir: str) -> None:
        """Nothing: the trial's own checkpoints are in its folder."""

    def load_checkpoint(self, checkpoint: dict[str, Any] | None) -> None:
        """Nothing: see `save_checkpoint`."""
