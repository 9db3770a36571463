"""A search whose trials replay recorded epochs instead of training: all that is real but the training.

A replaying trial computes nothing. It writes its config, its metrics and its rank trace epoch by epoch as a training
one does, but no checkpoint and no adapter.
"""

from __future__ import annotations

from pathlib import Path

from faar_ray.bench.replay.paced import replayed
from faar_ray.bench.replay.recorded import RHO, recorded
from faar_ray.train.fit import Epochs
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
            "search": {"seed": seed, "startup_trials": 10, "share_prefixes": False},  # a replay has no checkpoint
            "scheduler": {"min_epochs": 4, "reduction": 4},
            "budget": {"trials": trials},
            "storage": {"path": str(folder / "runs")},
            "tracking": {"uri": f"sqlite:///{folder / 'mlflow.db'}"},
        }
    )
