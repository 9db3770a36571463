"""An actor that replays trials at a pace, in a process without torch: hundreds of them fit into one machine."""

from __future__ import annotations

from typing import Any

from ray import tune

from faar_ray.bench.replayed import replayed
from faar_ray.config import TrialConfig


class PacedActor(tune.Trainable):
    """Stands in for `tune.trainable.TrialActor`, and answers as it does."""

    pace_s = 0.0
    """Seconds that an epoch takes."""

    def setup(self, config: dict[str, Any]) -> None:
        """Take a new trial."""
        self.spec = config
        self.last = TrialConfig.model_validate(config["config"]).optim.epochs - 1
        self.epochs = replayed(config, self.pace_s)

    def reset_config(self, new_config: dict[str, Any]) -> bool:
        """Take the next."""
        self.epochs.close()
        self.setup(new_config)
        return True

    def step(self) -> dict[str, Any]:
        """One epoch; after the last one the test split's metrics too."""
        record = next(self.epochs)
        out: dict[str, Any] = {"trial": self.spec["trial_id"], "epoch": record.epoch, "metrics": dict(record.metrics)}
        out |= {"notes": [], "done": record.epoch == self.last}
        if out["done"]:
            try:
                next(self.epochs)
            except StopIteration as end:
                out["test"] = dict(end.value)
        return out

    def save_checkpoint(self, checkpoint_dir: str) -> None:
        """There is none."""


def at_pace(seconds: float) -> type[PacedActor]:
    """The actor whose epochs take so long."""
    return type("PacedActor", (PacedActor,), {"pace_s": seconds})
