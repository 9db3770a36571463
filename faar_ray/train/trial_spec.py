"""What a process needs to train one trial; the same for a search and for one trial alone."""

from __future__ import annotations

import socket
from collections.abc import Mapping
from dataclasses import dataclass, fields
from pathlib import Path
from typing import Any

from faar_ray.config.paths import folder_of
from faar_ray.config.trial import TrialConfig
from faar_ray.errors import StorageError
from faar_ray.storage.run_location import RunLocation, TrialPaths, location_of_uri


@dataclass(frozen=True, slots=True)
class TrialSpec:
    """One trial, and where and how it is trained."""

    trial_id: str
    config: TrialConfig
    run: RunLocation
    references: Mapping[str, float] | None = None
    """Single-task metrics on val, task -> metric; with them records hold `delta_m`."""
    test_references: Mapping[str, float] | None = None
    """The same on test, for `test/delta_m`."""
    test: bool = False
    """Whether the test split is read at the end."""
    workers: int = 1
    threads: int = 1
    """CPU threads of a worker."""
    gpus_per_worker: float = 0.0
    keep_checkpoints: int = 2
    keep_epochs: tuple[int, ...] = ()
    """Numbers of finished epochs whose checkpoints are kept too, for forks."""
    stop_after: int | None = None
    """Epochs after which it ends as a prefix, without adapter, traces and test; None: it is none."""
    leave_end: bool = False
    """Whether the last of these is only trained, and its end left to each fork."""
    betas: tuple[float, ...] = ()
    """Values of `pdrs.beta` under which the scores are kept too, for forks (`RankPolicy.carry`)."""
    shards_uri: str = ""
    """Where the shards are taken from if the config names no folder; "" for none."""
    pause_after: int | None = None
    """Finished epochs after which the trial waits for others; None: it goes to its end."""
    parent: str = ""
    """Trial whose checkpoint it continues from, "" for none."""
    inherited_epochs: int = 0
    """Epochs of that checkpoint."""
    redo: bool = False
    """Whether the end of the last of these epochs is made anew, under this trial's own config."""
    sentinel_file: str = ""
    """A file of the run that must exist on every machine that trains, "" for none."""
    checkpoint: str = ""
    """Where the weights of `backbone.checkpoint` lie on this machine, "" for where the config says."""
    data_root: str = ""
    """`data.root` as an absolute path where it is a folder, for processes that work in another one."""
    title: str = ""
    """Of the trial's pictures."""

    @property
    def paths(self) -> TrialPaths:
        """Where the trial's files are on this machine."""
        return self.run.trial(self.trial_id)

    def to_dict(self) -> dict[str, Any]:
        """Plain JSON values, as they travel between processes."""
        values = {field.name: getattr(self, field.name) for field in fields(self)}
        plain = {name: dict(value) if isinstance(value, Mapping) else value for name, value in values.items()}
        run = {"path": str(self.run.path), "uri": self.run.uri}
        plain["data_root"] = self.data_root or str(folder_of(self.config.data.root) or "")
        plain |= {"keep_epochs": list(self.keep_epochs), "betas": list(self.betas)}
        return plain | {"config": self.config.model_dump(mode="json"), "run": run}

    @classmethod
    def from_dict(cls, plain: Mapping[str, Any]) -> TrialSpec:
        """Undo `to_dict`; the run's folder is this machine's."""
        path, uri = plain["run"]["path"], plain["run"]["uri"]
        run = location_of_uri(uri) if uri else RunLocation(Path(path))
        lists = {name: tuple(plain.get(name, ())) for name in ("keep_epochs", "betas")}
        return cls(**{**plain, **lists, "config": TrialConfig.model_validate(plain["config"]), "run": run})

    def check_folder(self) -> None:
        """See that the run's folder is on this machine.

        Raises:
            StorageError: it is not; the trial would write where nobody looks.
        """
        if self.sentinel_file and not (sentinel := Path(self.sentinel_file)).is_file():
            missing = f"storage.path: {sentinel.parent} is not on machine {socket.gethostname()}"
            raise StorageError(f"{missing}: use a bucket or a folder that all machines share")
