"""A trial inside a Tune actor: one step is one epoch of `train.fit`.

One-worker trials train in the actor itself, and the next trial reuses the actor (about 1 s instead of a new process);
more workers train under Ray Train, and the actor only passes on their epochs. The trial finds its own checkpoint in its
folder: a retry, a resumed search and a first run are the same call.
"""

from __future__ import annotations

import logging
import math
from typing import Any

import torch
from ray import tune

from faar_ray.errors import FaarRayError, StorageError
from faar_ray.records import EpochRecord
from faar_ray.train.fit import Epochs, fit
from faar_ray.train.fork import begin_as_fork
from faar_ray.train.runtimes.ray_train import TrainRun
from faar_ray.train.trial_spec import TrialSpec


class TrialActor(tune.Trainable):
    """Runs one trial after another; each result is `{"trial": id, "epoch": e, "metrics": {...}, "done": bool}`,
    the last one of a trial that was not stopped holds `test` as well.

    What a person must mend (a config, the data, a loss that is not finite) ends the trial with `error` in the result:
    trying again would fail again. A storage that gave out ends it with `storage`, and the search, for it is no trial's
    fault. Everything else raises, and Ray tries again.
    """

    def setup(self, config: dict[str, Any]) -> None:
        """Take a new trial (`TrialSpec.to_dict`); it starts with the first step."""
        self.spec = TrialSpec.from_dict(config)
        self.last = self.spec.config.optim.epochs - 1
        self.epochs: Epochs | None = None
        torch.set_num_threads(self.spec.threads)
        warning_collector()

    def reset_config(self, new_config: dict[str, Any]) -> bool:
        """End the trial before and take the next."""
        self.cleanup()
        self.setup(new_config)
        return True

    def cleanup(self) -> None:
        """Close the training loop: the trial's files are completed, its workers are freed."""
        if self.epochs is not None:
            self.epochs.close()
        self.epochs = None

    def start(self) -> Epochs:
        """The epochs of the trial, recorded ones first (at once), then trained ones; then the test split's metrics."""
        self.spec.check_folder()
        if self.spec.parent:
            begin_as_fork(self.spec)
        return fit(self.spec) if self.spec.workers == 1 else TrainRun(self.spec).epochs()

    def step(self) -> dict[str, Any]:
        """Train (or replay) one epoch."""
        return self._guarded() | {"notes": warning_collector().take()}

    def _guarded(self) -> dict[str, Any]:
        try:
            return self._epoch()
        except StorageError as fault:
            return {"trial": self.spec.trial_id, "storage": str(fault), "done": True}
        except FaarRayError as fault:
            return {"trial": self.spec.trial_id, "error": str(fault), "done": True}

    def _epoch(self) -> dict[str, Any]:
        if self.epochs is None:
            self.epochs = self.start()
        try:
            record = next(self.epochs)
        except StopIteration:
            if self.spec.stop_after is None:
                raise
            return {"trial": self.spec.trial_id, "prefix": True, "done": True}
        out: dict[str, Any] = {"trial": self.spec.trial_id, "epoch": record.epoch, "metrics": dict(record.metrics)}
        if not math.isfinite(record.metrics.get("delta_m", 0.0)):
            return out | {"error": why_no_delta_m(record), "done": True}
        if record.epoch + 1 == self.spec.pause_after:  # its workers are freed before anybody is told
            self.cleanup()
            return out | {"done": True}
        if record.epoch < self.last or self.spec.stop_after is not None:
            return out | {"done": False}
        return out | {"test": self._test(), "done": True}

    def _test(self) -> dict[str, float]:
        """The test split, read once; the search never looks at it."""
        assert self.epochs is not None
        try:
            record = next(self.epochs)
        except StopIteration as end:
            return dict(end.value)
        raise AssertionError(f"epoch {record.epoch} after the last")


def why_no_delta_m(record: EpochRecord) -> str:
    """Which metrics delta_m lacks, beside its own value."""
    text = f"delta_m is {record.metrics['delta_m']} after epoch {record.epoch}"
    lacking = [name for name, v in record.metrics.items() if name.startswith("val/") and not math.isfinite(v)]
    return f"{text}: without labels, or diverged: {', '.join(lacking)}" if lacking else text


ROOT = logging.getLogger("faar_ray")


class WarningCollector(logging.Handler):
    """Keeps the package's warnings."""

    def __init__(self) -> None:
        super().__init__(logging.WARNING)
        self._kept: list[str] = []

    def emit(self, record: logging.LogRecord) -> None:
        """Keep one."""
        self._kept.append(record.getMessage())

    def take(self) -> list[str]:
        """Those since the last call."""
        kept, self._kept = self._kept, []
        return kept


def warning_collector() -> WarningCollector:
    """The one of this process."""
    for handler in ROOT.handlers:
        if isinstance(handler, WarningCollector):
            return handler
    handler = WarningCollector()
    ROOT.addHandler(handler)
    return handler
