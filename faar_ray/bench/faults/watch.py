"""Watching a search from outside, by its files: where it is, and the moment at which something is to be killed."""

from __future__ import annotations

import random
import threading
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

Moment = Literal["first epoch", "after a shrink", "while writing a checkpoint", "any"]
MOMENTS: tuple[Moment, ...] = ("first epoch", "after a shrink", "while writing a checkpoint", "any")
POLL_S = 0.0005


@dataclass(frozen=True, slots=True)
class Written:
    """A checkpoint appeared."""

    at: float
    """time.monotonic()"""
    trial: str
    epoch: int


class Watch:
    """Notes every checkpoint of a run as it appears, also one that is written a second time.

    Args:
        run: folder of the run; need not exist yet.
    """

    def __init__(self, run: Path) -> None:
        self.run = run
        self.written: list[Written] = []
        self._known: dict[Path, tuple[int, int]] = {}
        self._over = threading.Event()
        self._thread = threading.Thread(target=self._work, name="watch", daemon=True)
        self._thread.start()

    def close(self) -> None:
        """Stop watching."""
        self._over.set()
        self._thread.join()

    def last_epoch(self, trial: str) -> int:
        """The newest epoch that a trial has on disk, -1 without any."""
        epochs = [int(path.stem[-4:]) for path in (self.run / "trials" / trial / "checkpoints").glob("epoch_*.pt")]
        return max(epochs, default=-1)

    def since(self, moment: float, trial: str) -> list[Written]:
        """What a trial wrote after a moment."""
        return [note for note in self.written if note.trial == trial and note.at > moment]

    def _work(self) -> None:
        while not self._over.wait(0.005):
            for path in self.run.glob("trials/*/checkpoints/epoch_*.pt"):
                try:
                    stat = path.stat()
                except OSError:
                    continue
                mark = (stat.st_ino, stat.st_mtime_ns)
                if self._known.get(path) != mark:
                    self._known[path] = mark
                    note = Written(time.monotonic(), path.parent.parent.name, int(path.stem[-4:]))
                    self.written.append(note)


@dataclass(frozen=True, slots=True)
class Trigger:
    """When to kill: at an epoch of a trial, seconds after its first sign."""

    moment: Moment
    trial: str
    epoch: int
    delay: float

    def wait(self, run: Path, alive: Callable[[], bool], limit_s: float) -> bool:
        """Until the moment has come; False where the search ended (or the limit came) before."""
        deadline = time.monotonic() + limit_s
        folder = run / "trials" / self.trial
        while not self._come(folder):
            if time.monotonic() > deadline or not alive():
                return False
            time.sleep(POLL_S)
        time.sleep(self.delay)
        return alive()

    def _come(self, folder: Path) -> bool:
        checkpoint = folder / "checkpoints" / f"epoch_{self.epoch:04d}.pt"
        if self.moment in ("first epoch", "any"):
            return (folder / "config.yaml").exists()
        if self.moment == "after a shrink":
            return checkpoint.exists()
        try:
            return any(folder.glob(f"checkpoints/.{checkpoint.name}.*.tmp"))
        except FileNotFoundError:  # it was just put in place
            return False


def draw_trigger(
    draw: random.Random, moment: Moment, shrinks: dict[str, list[int]], epoch_s: float, epochs: int
) -> Trigger:
    """A random moment of a kind.

    Args:
        draw: the campaign's.
        moment: the kind.
        shrinks: by trial, the epochs that changed ranks.
        epoch_s: how long an epoch takes.
        epochs: of a trial.
    """
    trial = draw.choice(sorted(name for name, at in shrinks.items() if at))
    if moment == "first epoch":
        return Trigger(moment, trial, 0, draw.uniform(0, 0.8 * epoch_s))
    if moment == "any":
        return Trigger(moment, trial, 0, draw.uniform(0, epoch_s * (epochs - 1)))
    return Trigger(moment, trial, draw.choice([at for at in shrinks[trial] if at < epochs - 1]), 0.0)
