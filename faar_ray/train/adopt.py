"""A trial that goes on from a given checkpoint: its own of before (pause and resume), or another trial's (PBT)."""

from __future__ import annotations

import shutil
from pathlib import Path
from typing import Any

from faar_ray.config import TrialConfig
from faar_ray.errors import ConfigError, DataError
from faar_ray.train.checkpoint import checkpoints_of, last_good_checkpoint, read_checkpoint, save_checkpoint

MAY_CHANGE = (
    "optim.lr",
    "optim.decoder_lr",
    "optim.backbone_lr",
    "pdrs.beta",
    "pdrs.rho_shared",
    "pdrs.rho_task",
)
"""Keys that may differ between a checkpoint and the trial that adopts it: nothing in memory has their shape."""


def hand_over(folder: Path, to: Path) -> None:
    """Copy a trial's newest checkpoint into another folder.

    Raises:
        DataError: there is none.
    """
    paths = checkpoints_of(folder)
    if not paths:
        raise DataError(f"{folder}: holds no checkpoint")
    shutil.copyfile(paths[-1], to / paths[-1].name)


def adopt(given: Path, folder: Path, config: TrialConfig) -> int:
    """Make a trial go on from the checkpoint in `given`; gives how many epochs it holds.

    A trial that is further on than its own earlier checkpoint stays there.

    Args:
        given: folder of the checkpoint, as `hand_over` left it.
        folder: of the trial.
        config: of the trial; against the checkpoint's only `MAY_CHANGE` may differ.

    Raises:
        ConfigError: another key differs.
        DataError: there is no readable checkpoint.
    """
    paths = sorted(given.glob("epoch_*.pt"))
    if not paths:
        raise DataError(f"{given}: holds no checkpoint")
    state = read_checkpoint(paths[-1])
    epochs = len(state["records"])
    own = last_good_checkpoint(folder)
    if own is not None and TrialConfig.resolve(own["config"]) == config and _is_ahead(own, state):
        return epochs
    theirs, ours = TrialConfig.resolve(state["config"]).dotted(), config.dotted()
    fixed = [key for key in ours if theirs.get(key) != ours[key] and not key.startswith(MAY_CHANGE)]
    if fixed:
        raise ConfigError(f"{', '.join(fixed)}: cannot change while a trial trains; only {', '.join(MAY_CHANGE)} can")
    for old in checkpoints_of(folder):
        old.unlink()
    state["config"] = config.model_dump(mode="json")
    save_checkpoint(folder, epochs - 1, state, keep=1)
    return epochs


def _is_ahead(own: dict[str, Any], given: dict[str, Any]) -> bool:
    """Whether a trial's state came out of the given one: it has the same past, to the clock's last digit."""
    past = given["records"]
    return bool(own["records"][: len(past)] == past)
