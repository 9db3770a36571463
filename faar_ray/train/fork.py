"""A trial that begins with another trial's checkpoint: a copy (`pbt`), or a fork that shares its parent's past.

A fork with `redo` makes the end of the last inherited epoch anew, under its own config: rank decision, evaluation,
records. What it gives is then, bit for bit, what its config alone would have given from its start.
"""

from __future__ import annotations

import tempfile
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from faar_ray.config.moments.moment import Moment, first_decision
from faar_ray.config.moments.sharing import forbidden
from faar_ray.config.trial import CHANGEABLE, TrialConfig
from faar_ray.errors import ConfigError, DataError
from faar_ray.ranks import inherited_records
from faar_ray.storage.remote_copy import RemoteCopy
from faar_ray.storage.run_location import TrialPaths
from faar_ray.tracking.files.epoch_file import read_trial_records, write_epochs
from faar_ray.train.checkpoint import (
    DUE,
    checkpoint_path,
    checkpoints_of,
    digest_of,
    past_of,
    read_checkpoint,
    save_checkpoint,
)
from faar_ray.train.trial_spec import TrialSpec

TRAINED = ("train/", "time/step_ms", "memory/")
"""Beginnings of an epoch's metrics that come from its training, not from its end."""


def begin_as_fork(spec: TrialSpec) -> None:
    """Give a trial its parent's checkpoint and records, also in its remote copy, at its first start.

    Raises:
        ConfigError: a key differs that may not.
        DataError: checkpoint or records are missing or damaged.
        StorageError: the trials' files cannot be read or written.
    """
    trial, parent = spec.paths, spec.run.trial(spec.parent)
    trial.remote_copy.pull()
    if checkpoints_of(trial.folder):
        return
    epochs, redo = spec.inherited_epochs, spec.redo
    if not spec.run.uri:
        fork_from_parent(parent, trial, spec.config, epochs, redo=redo)
        return

    # the parent may be training on in its folder, of this machine too: what is needed of it is fetched beside that
    with tempfile.TemporaryDirectory() as scratch:
        fetched = TrialPaths(Path(scratch), spec.parent)
        parts = (checkpoint_path(fetched.folder, epochs - 1), fetched.epochs, fetched.records)
        RemoteCopy(spec.run.uri, fetched.run, parts).pull()
        fork_from_parent(fetched, trial, spec.config, epochs, redo=redo)
    trial.remote_copy.push()


def fork_from_parent(
    parent: TrialPaths, trial: TrialPaths, config: TrialConfig, epochs: int, *, redo: bool = False
) -> None:
    """Give a new trial another trial's checkpoint and records; a trial that has a checkpoint already stays as it is.

    Args:
        parent: the other trial, which may be training on.
        trial: the new one.
        config: of the new trial. Against the checkpoint's only keys may differ that matter from the fork on (`moment`);
            without `redo` also `CHANGEABLE`, whose past values stay in the past.
        epochs: after which the checkpoint was written.
        redo: the end of the last of these epochs is made under `config`. Where the parent has made it too, its policy
            must not have decided anything up to there.

    Raises:
        ConfigError: another key differs, or the parent has decided.
        DataError: checkpoint or records are missing or damaged.
    """
    if checkpoints_of(trial.folder):
        return
    path = checkpoint_path(parent.folder, epochs - 1)
    if not path.is_file():
        raise DataError(f"{path}: is missing, and trial {trial.trial_id} would continue from it")
    state = read_checkpoint(path)
    is_due = DUE in state
    if is_due and not redo:
        raise DataError(
            f"{path}: the end of its epoch is not made yet, and trial {trial.trial_id} would continue from it"
        )
    _check_keys(TrialConfig.resolve(state["config"]), config, state["policy"], epochs, redo=redo, is_due=is_due)

    given, _ = read_trial_records(parent)
    past = past_of(path, state, given)
    records = inherited_records(config, state["policy"], past)
    if redo and not is_due:
        trained = {name: value for name, value in past[-1].metrics.items() if name.startswith(TRAINED)}
        records, state = records[:-1], {**state, DUE: trained}
    facts = {"config": config.model_dump(mode="json"), "epochs": len(records), "records_digest": digest_of(records)}
    write_epochs(trial.epochs, records)
    save_checkpoint(trial.folder, epochs - 1, {**state, **facts}, keep=1)


def _check_keys(
    parent: TrialConfig, fork: TrialConfig, policy: Mapping[str, Any], epochs: int, *, redo: bool, is_due: bool
) -> None:
    """See that a fork may begin after `epochs` epochs of the parent."""
    moment = Moment(epochs - 1, at_end=True) if redo else Moment(epochs)
    betas = [parent.pdrs.beta, *(scores["beta"] for scores in policy.get("carried", ()))]
    keys = forbidden(parent, fork, moment, betas)
    if redo:
        if keys:
            raise ConfigError(f"{', '.join(keys)}: matters before {moment}, where the trial forks from another")
        if not is_due and (decided := first_decision(parent)) <= moment:
            raise ConfigError(f"ranks.kind: {moment} cannot be made anew, the ranks were decided at {decided}")
        return
    if fixed := [key for key in keys if not key.startswith(CHANGEABLE)]:
        raise ConfigError(f"{', '.join(fixed)}: cannot change while a trial trains; only {', '.join(CHANGEABLE)} can")
