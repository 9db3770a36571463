"""A trial that goes on from a given checkpoint: its own of before (pause and resume), or another trial's (`pbt`)."""

from __future__ import annotations

import shutil
from pathlib import Path
from typing import Any

from faar_ray.config.trial import CHANGEABLE, TrialConfig
from faar_ray.errors import ConfigError, DataError
from faar_ray.train.checkpoint import (
    checkpoint_path,
    checkpoints_of,
    last_good_checkpoint,
    read_checkpoint,
    save_checkpoint,
)


def export_checkpoint(folder: Path, to: Path) -> None:
    """Copy a trial's newest checkpoint into another folder.

    Raises:
        DataError: there is none.
    """
    paths = checkpoints_of(folder)
    if not paths:
        raise DataError(f"{folder}: holds no checkpoint")
    shutil.copyfile(paths[-1], to / paths[-1].name)


def restore_or_adopt(given: Path, folder: Path, config: TrialConfig) -> int:
    """Make a trial go on from the checkpoint in `given`; gives how many epochs it holds.

    A trial that is further on than its own earlier checkpoint stays there.

    Args:
        given: folder of the checkpoint, as `hand_over` left it.
        folder: of the trial.
        config: of the trial; against the checkpoint's only `CHANGEABLE` may differ.

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
    _begin_from(state, folder, config)
    return epochs


def fork_from_parent(parent: Path, folder: Path, config: TrialConfig, epochs: int) -> None:
    """Make a new trial go on from another trial's checkpoint; one that has a checkpoint of its own has done so before.

    Args:
        parent: folder of the other trial.
        folder: of the trial.
        config: of the trial; against the checkpoint's only `CHANGEABLE` may differ.
        epochs: after which the checkpoint was written.

    Raises:
        ConfigError: another key differs.
        DataError: the checkpoint is not there, or cannot be read.
    """
    if checkpoints_of(folder):
        return
    given = checkpoint_path(parent, epochs - 1)
    if not given.is_file():
        raise DataError(f"{given}: is not there, and the trial would go on from it")
    _begin_from(read_checkpoint(given), folder, config)


def _begin_from(state: dict[str, Any], folder: Path, config: TrialConfig) -> None:
    """Write a checkpoint's state as the trial's only one, under the trial's config."""
    theirs, ours = TrialConfig.resolve(state["config"]).dotted(), config.dotted()
    fixed = [key for key in ours if theirs.get(key) != ours[key] and not key.startswith(CHANGEABLE)]
    if fixed:
        raise ConfigError(f"{', '.join(fixed)}: cannot change while a trial trains; only {', '.join(CHANGEABLE)} can")
    for old in checkpoints_of(folder):
        old.unlink()
    state["config"] = config.model_dump(mode="json")
    save_checkpoint(folder, len(state["records"]) - 1, state, keep=1)


def _is_ahead(own: dict[str, Any], given: dict[str, Any]) -> bool:
    """Whether a trial's state came out of the given one: it has the same past, to the clock's last digit."""
    past = given["records"]
    return bool(own["records"][: len(past)] == past)
