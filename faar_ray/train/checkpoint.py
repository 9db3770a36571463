"""Checkpoints: one file per epoch, written atomically, read with its checksums and `weights_only=True`.

A checkpoint holds the trained tensors, buffers, ranks, policy, optimizer, scheduler, the global random state and
all records so far, so that a resumed run gives what an uninterrupted one gives, bit for bit on one CPU worker.
"""

from __future__ import annotations

import logging
from dataclasses import asdict
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from faar_ray.errors import DataError
from faar_ray.models import MultiTaskModel, trained_state
from faar_ray.records import EpochRecord, RankRecord, SineRecord
from faar_ray.storage.atomic import atomic_write_or_storage_error
from faar_ray.storage.torch_file import read_torch_file

FORMAT = 2
PARTS = ("config", "ranks", "model", "policy", "optimizer", "steps", "scaler", "random", "records")
log = logging.getLogger(__name__)


def checkpoint_path(folder: Path, epoch: int) -> Path:
    """`<folder>/checkpoints/epoch_0003.pt`."""
    return folder / "checkpoints" / f"epoch_{epoch:04d}.pt"


def save_checkpoint(folder: Path, epoch: int, state: dict[str, Any], *, keep: int) -> Path:
    """Write the state after `epoch` and delete all but the newest `keep` checkpoints."""
    path = checkpoint_path(folder, epoch)
    with atomic_write_or_storage_error(path) as scratch:
        try:
            with scratch.open("wb") as file:
                torch.save({"format": FORMAT, **state}, file)
        except RuntimeError as fault:  # torch finishes its archive whatever happens, and fails again
            raise (fault.__context__ if isinstance(fault.__context__, OSError) else fault) from None
    for old in checkpoints_of(folder)[:-keep]:
        old.unlink(missing_ok=True)  # a process that was thought dead may have removed it
    return path


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


def last_good_checkpoint(folder: Path) -> dict[str, Any] | None:
    """The newest checkpoint that can be read, None without any; a damaged one is named and passed over.

    Raises:
        DataError: there are checkpoints, but none can be read.
    """
    paths = checkpoints_of(folder)
    faults: list[str] = []
    for path in reversed(paths):
        try:
            return read_checkpoint(path)
        except DataError as fault:
            faults.append(str(fault))
            log.warning("%s; the one before it is used", fault)
    if faults:
        raise DataError(
            f"{folder / 'checkpoints'}: none of {len(paths)} checkpoints can be read ({'; '.join(faults)}); "
            "delete the folder to train the trial from its start"
        )
    return None


def load_trained_state(model: MultiTaskModel, state: dict[str, Tensor]) -> None:
    """Undo `trained_state`, after the adapters have their ranks."""
    expected = trained_state(model).keys()
    if expected != state.keys():
        odd = sorted(expected ^ state.keys())
        raise DataError(f"checkpoint does not fit the model: {', '.join(odd[:5])} ({len(odd)} names differ)")
    model.load_state_dict(state, strict=False)


def records_to_plain(records: list[EpochRecord]) -> list[dict[str, Any]]:
    """Records as plain data."""
    return [asdict(record) for record in records]


def records_from_plain(plain: list[dict[str, Any]]) -> list[EpochRecord]:
    """Undo `records_to_plain`."""
    return [
        EpochRecord(
            epoch=row["epoch"],
            metrics=row["metrics"],
            ranks=tuple(RankRecord(**{**r, "importance": tuple(r["importance"])}) for r in row["ranks"]),
            sines=tuple(SineRecord(**r) for r in row.get("sines", ())),  # older checkpoints have none
        )
        for row in plain
    ]
