"""Checkpoints: one file per epoch, written atomically, read with its checksums and `weights_only=True`.

A checkpoint holds the trained tensors, buffers, ranks, policy, optimizer, scheduler and the global random state. The
epochs' records are in files of their own (`tracking.files.epoch_file`); the checkpoint holds their digest. A resumed
run gives what an uninterrupted one gives, bit for bit on one CPU worker.

A fork's first checkpoint may have an end that is due (`due`): the weights after the training of epoch N, whose end the
fork makes itself, with records of the N epochs before it.
"""

from __future__ import annotations

import hashlib
import json
import logging
from collections.abc import Collection, Iterable, Mapping
from dataclasses import asdict
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from faar_ray.config.trial import TrialConfig
from faar_ray.errors import ConfigError, DataError
from faar_ray.models import MultiTaskModel, trained_state
from faar_ray.models.weight_file import other_weights
from faar_ray.records import EpochRecord
from faar_ray.storage.atomic import atomic_write_or_storage_error
from faar_ray.storage.run_location import TrialPaths
from faar_ray.storage.torch_file import read_torch_file
from faar_ray.tracking.files.epoch_file import read_trial_records

FORMAT = 3
PARTS = (
    "config", "epochs", "ranks", "model", "policy", "optimizer", "steps", "scaler", "random", "records_digest",
)  # fmt: skip
DUE = "due"
"""Of an epoch whose end is still to be made: the metrics of its training."""
log = logging.getLogger(__name__)


def checkpoint_path(folder: Path, epoch: int) -> Path:
    """`<folder>/checkpoints/epoch_0003.pt`."""
    return folder / "checkpoints" / f"epoch_{epoch:04d}.pt"


def save_checkpoint(
    folder: Path, epoch: int, state: dict[str, Any], *, keep: int, keep_epochs: Collection[int] = ()
) -> Path:
    """Write the state after `epoch`; delete all checkpoints but the newest `keep` and those after `keep_epochs`."""
    path = checkpoint_path(folder, epoch)
    with atomic_write_or_storage_error(path) as scratch:
        try:
            with scratch.open("wb") as file:
                torch.save({"format": FORMAT, **state}, file)
        except RuntimeError as error:  # torch finishes its archive whatever happens, and fails again
            raise (error.__context__ if isinstance(error.__context__, OSError) else error) from None
    drop_old_checkpoints(folder, keep, {checkpoint_path(folder, epochs - 1) for epochs in keep_epochs})
    return path


def drop_old_checkpoints(folder: Path, keep: int, named: Collection[Path] = ()) -> None:
    """Delete a trial's checkpoints, but the newest `keep` and the named ones."""
    for old in checkpoints_of(folder)[:-keep]:
        if old not in named:
            old.unlink(missing_ok=True)  # a process that was thought dead may have removed it


def checkpoints_of(folder: Path) -> list[Path]:
    """A trial's checkpoints, oldest first."""
    return sorted((folder / "checkpoints").glob("epoch_*.pt"))


def read_checkpoint(path: Path) -> dict[str, Any]:
    """One checkpoint's state.

    Raises:
        DataError: it is damaged, or of another format.
    """
    state = dict(read_torch_file(path))
    if state.get("format") != FORMAT:
        raise DataError(f"{path}: must be a checkpoint of format {FORMAT}, got {state.get('format')!r}")
    if lacking := [part for part in PARTS if part not in state]:
        raise DataError(f"{path}: {', '.join(lacking)} missing")
    return state


def last_good_checkpoint(trial: TrialPaths) -> tuple[dict[str, Any] | None, list[EpochRecord]]:
    """The newest checkpoint that can be read and whose epochs' records can be read too, and these records.

    A checkpoint or a record that is damaged is a warning, and the checkpoint before it is used. None without any
    checkpoint, or if the records of every checkpoint's past are lost: then the trial is trained from its start.

    Raises:
        DataError: there are checkpoints, but none can be read.
    """
    records, damaged = read_trial_records(trial)
    for error in damaged.values():
        log.warning("%s", error)

    paths = checkpoints_of(trial.folder)
    errors: list[str] = []
    readable = 0
    for path in reversed(paths):
        try:
            state = read_checkpoint(path)
            readable += 1
            return state, past_of(path, state, records)
        except DataError as error:
            errors.append(str(error))
            log.warning("%s; the checkpoint before it is used", error)

    if paths and not readable:
        raise DataError(
            f"{trial.folder / 'checkpoints'}: none of {len(paths)} checkpoints can be read ({'; '.join(errors)}); "
            "delete the folder to train the trial from its start"
        )
    if paths:
        log.warning("%s: trained again from its start, for lack of its records", trial.folder)
    return None, []


def past_of(path: Path, state: Mapping[str, Any], records: Mapping[int, EpochRecord]) -> list[EpochRecord]:
    """The records of a checkpoint's epochs.

    Args:
        path: of the checkpoint.
        state: of the checkpoint.
        records: of the trial, by epoch.

    Raises:
        DataError: one is lost, or is not what it was when the checkpoint was written.
    """
    past = [records[epoch] for epoch in range(state["epochs"]) if epoch in records]
    if len(past) < state["epochs"] or digest_of(past) != state["records_digest"]:
        raise DataError(f"{path}: the records of its {state['epochs']} epochs are lost or damaged")
    return past


def digest_of(records: Iterable[EpochRecord], before: str = "") -> str:
    """SHA-256 of all values of all records; `before` is the digest of earlier ones, "" for none."""
    for record in records:
        values = json.dumps(_canonical(asdict(record)), sort_keys=True)
        before = hashlib.sha256(f"{before} {values}".encode()).hexdigest()
    return before


def _canonical(value: Any) -> Any:
    """A value as any file of records gives it back: whole numbers may come back as floats."""
    if isinstance(value, dict):
        return {key: _canonical(item) for key, item in value.items()}
    if isinstance(value, list | tuple):
        return [_canonical(item) for item in value]
    return float(value) if isinstance(value, int) else value


def check_config(trial: TrialPaths, state: Mapping[str, Any], config: TrialConfig) -> None:
    """See that a checkpoint is of this config.

    Raises:
        ConfigError: naming the keys that differ.
    """
    saved = TrialConfig.resolve(state["config"])
    if saved == config:
        return
    theirs, ours = saved.dotted(), config.dotted()
    changed = [f"{key}: {theirs.get(key)} there, {ours[key]} here" for key in ours if theirs.get(key) != ours[key]]
    raise ConfigError(f"{trial.folder}: was trained with another config ({'; '.join(changed)})")


def check_weights(trial: TrialPaths, state: Mapping[str, Any], weights_digest: str) -> None:
    """See that the frozen backbone has the weights that a checkpoint was trained on.

    Raises:
        DataError: it has others.
    """
    before = state.get("weights", "")  # none in checkpoints of older versions
    if before not in ("", weights_digest):
        raise DataError(f"{trial.folder}: {other_weights('the config', before, weights_digest)}")


def load_trained_state(model: MultiTaskModel, state: dict[str, Tensor]) -> None:
    """Undo `trained_state`, after the adapters have their ranks.

    Raises:
        DataError: the names in the state are not the model's.
    """
    expected = trained_state(model).keys()
    if expected != state.keys():
        odd = sorted(expected ^ state.keys())
        raise DataError(f"checkpoint does not fit the model: {', '.join(odd[:5])} ({len(odd)} names differ)")
    model.load_state_dict(state, strict=False)
