"""A trial that begins with another trial's checkpoint (`pbt`)."""

from __future__ import annotations

from faar_ray.config.trial import CHANGEABLE, TrialConfig
from faar_ray.errors import ConfigError, DataError
from faar_ray.storage.run_location import TrialPaths
from faar_ray.tracking.files.epoch_file import read_trial_records, write_epochs
from faar_ray.train.checkpoint import checkpoint_path, checkpoints_of, past_of, read_checkpoint, save_checkpoint


def fork_from_parent(parent: TrialPaths, trial: TrialPaths, config: TrialConfig, epochs: int) -> None:
    """Give a new trial another trial's checkpoint and records; a trial that has a checkpoint already stays as it is.

    Args:
        parent: the other trial, which may be training on.
        trial: the new one.
        config: of the new trial; against the checkpoint's only `CHANGEABLE` may differ.
        epochs: after which the checkpoint was written.

    Raises:
        ConfigError: another key differs.
        DataError: checkpoint or records are missing or damaged.
    """
    if checkpoints_of(trial.folder):
        return
    path = checkpoint_path(parent.folder, epochs - 1)
    if not path.is_file():
        raise DataError(f"{path}: is missing, and trial {trial.trial_id} would continue from it")

    state = read_checkpoint(path)
    theirs, ours = TrialConfig.resolve(state["config"]).dotted(), config.dotted()
    fixed = [key for key in ours if theirs.get(key) != ours[key] and not key.startswith(CHANGEABLE)]
    if fixed:
        raise ConfigError(f"{', '.join(fixed)}: cannot change while a trial trains; only {', '.join(CHANGEABLE)} can")

    records, _ = read_trial_records(parent)
    write_epochs(trial.epochs, past_of(path, state, records))
    save_checkpoint(trial.folder, epochs - 1, {**state, "config": config.model_dump(mode="json")}, keep=1)
