"""The folder of a run: `<storage.path>/<name>/` with `space.yaml`, `run.json`, `study.log`, `trials/`, `rank_trace/`.

One driver at a time holds it, by a lock that the system takes back when the driver dies.
"""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import yaml
from filelock import FileLock, Timeout
from pydantic import ValidationError

from faar_ray.errors import ConfigError, DataError
from faar_ray.records import TrialResult
from faar_ray.storage.atomic import atomic_write, atomic_write_or_storage_error, check_writable, clear_leftovers
from faar_ray.storage.run_location import RunLocation, TrialPaths, location_of
from faar_ray.tracking.files.rank_trace import read_rank_trace
from faar_ray.tracking.files.trial_files import write_trace
from faar_ray.train.checkpoint import last_good_checkpoint, records_from_plain
from faar_ray.tune.space.space import SearchSpace

MAY_CHANGE = ("budget", "resources", "failure")
"""Sections that a resumed search may change: they say how much and where, never what a trial is."""


@dataclass(frozen=True)
class RunFolder:
    """Paths of one run; `lock` is held until `close`."""

    path: Path
    lock: FileLock

    @property
    def space_file(self) -> Path:
        """The resolved search space."""
        return self.path / "space.yaml"

    @property
    def study_log(self) -> Path:
        """The Optuna journal."""
        return self.path / "study.log"

    @property
    def results(self) -> Path:
        """One row per trial."""
        return self.path / "results.parquet"

    @property
    def ray(self) -> Path:
        """Ray's own bookkeeping; nobody needs it afterwards."""
        return self.path / ".ray"

    def close(self) -> None:
        """Let go of the run."""
        shutil.rmtree(self.ray, ignore_errors=True)
        self.lock.release()


def run_location_of(space: SearchSpace, name: str) -> RunLocation:
    """Where a run is."""
    return location_of(space.storage.path, name)


def check_resumable(path: Path, space: SearchSpace, *, resume: bool) -> None:
    """Refuse before anything is touched: a name in use without `--resume`, or one to resume that does not fit.

    Raises:
        ConfigError: saying which.
    """
    if resume:
        if not (path / "space.yaml").is_file():
            raise ConfigError(f"--resume: there is no run in {path}; without --resume it is started")
        if faults := list(differences(with_defaults(stored_space(path)), resolved(space))):
            raise ConfigError([f"--resume: {fault}" for fault in faults])
    elif path.exists() and (not path.is_dir() or any(path.iterdir())):
        raise ConfigError(f"name: {path} exists already: --resume goes on with it, --name NEW starts another")


def lock_run(path: Path, space: SearchSpace, *, emptied: bool = False) -> RunFolder:
    """Make or take the folder.

    Args:
        path: the folder.
        space: what is searched.
        emptied: take away what is there, of a working copy that another run of this name left.

    Raises:
        ConfigError: another driver holds it, or it cannot be written.
    """
    try:
        check_writable(path)
        path.mkdir(parents=True, exist_ok=True)
        lock = FileLock(path / ".lock", blocking=False, thread_local=False)
        lock.acquire()
    except Timeout:
        raise ConfigError(f"name: a search is running in {path} at this moment") from None
    except OSError as fault:
        raise ConfigError(f"storage.path: {path} cannot be written ({fault.strerror})") from None
    folder = RunFolder(path, lock)
    try:
        _prepare(folder, space, emptied=emptied)
    except OSError as fault:
        folder.close()
        raise ConfigError(f"storage.path: {path} cannot be written ({fault.strerror})") from None
    return folder


def _prepare(folder: RunFolder, space: SearchSpace, *, emptied: bool) -> None:
    shutil.rmtree(folder.ray, ignore_errors=True)
    for old in folder.path.iterdir() if emptied else ():
        if old.is_dir():
            shutil.rmtree(old)
        elif old.name != ".lock":
            old.unlink()
    for part in ("trials", "rank_trace"):
        (folder.path / part).mkdir(exist_ok=True)
    for place in (
        folder.path,
        folder.path / "rank_trace",
    ):  # of a killed driver or trial; a trial clears its own folder
        clear_leftovers(place)
    with atomic_write(folder.space_file) as scratch:
        scratch.write_text(as_yaml(space))


def write_run(folder: RunFolder, facts: Mapping[str, Any]) -> None:
    """`run.json`: name, tracking_uri, parent_run_id, objectives."""
    with atomic_write_or_storage_error(folder.path / "run.json") as scratch:
        scratch.write_text(json.dumps(facts, indent=1))


def read_run(folder: RunFolder) -> dict[str, Any]:
    """`run.json`, or nothing where a killed driver had not written it yet."""
    try:
        facts: dict[str, Any] = json.loads((folder.path / "run.json").read_text())
        return facts
    except (OSError, ValueError):
        return {}


def resolved(space: SearchSpace) -> dict[str, Any]:
    """The space as plain values, defaults included."""
    plain: dict[str, Any] = json.loads(space.model_dump_json(by_alias=True))
    return plain


def as_yaml(space: SearchSpace) -> str:
    """The resolved space as the YAML that `faar_ray.tune` reads."""
    return yaml.safe_dump(resolved(space), sort_keys=False, width=120)


def stored_space(path: Path) -> dict[str, Any]:
    """The space that a run was started with."""
    try:
        stored = yaml.safe_load((path / "space.yaml").read_text())
    except (OSError, UnicodeDecodeError, yaml.YAMLError) as fault:
        raise DataError(f"{path / 'space.yaml'}: is not readable ({fault})") from None
    if not isinstance(stored, dict):
        raise DataError(f"{path / 'space.yaml'}: is not a search space")
    return stored


def with_defaults(stored: dict[str, Any]) -> dict[str, Any]:
    """A stored space with the keys that did not exist yet when it was written."""
    try:
        return resolved(SearchSpace.model_validate(stored))
    except ValidationError:
        return stored


def differences(old: Mapping[str, Any], new: Mapping[str, Any]) -> Iterator[str]:
    """What of a space changed that must not, one sentence each."""
    before, after = dict(_flat(old)), dict(_flat(new))
    for key in [*before, *(key for key in after if key not in before)]:
        if key.split(".")[0] not in MAY_CHANGE and before.get(key) != after.get(key):
            was, now = (json.dumps(side[key]) if key in side else "absent" for side in (before, after))
            yield f"{key} was {was} when the run was started and is {now} now; a new --name starts another run"


def _flat(tree: Mapping[str, Any], prefix: str = "") -> Iterator[tuple[str, Any]]:
    for key, value in tree.items():
        if isinstance(value, Mapping) and value:
            yield from _flat(value, f"{prefix}{key}.")
        else:
            yield f"{prefix}{key}", value


def repair_traces(place: RunLocation, results: Sequence[TrialResult], say: Callable[[str], None]) -> None:
    """Make the traces of all trials readable, as far as there are checkpoints to make them from.

    Args:
        place: of the run.
        results: trials that have ended; the others write theirs when they go on.
        say: is told what was wrong.
    """
    for result in results:
        trial = place.trial(result.trial_id)
        trace = trial.trace
        try:
            read_rank_trace(trace)
        except DataError as fault:
            damaged = trace.exists()
            if _repaired(trial):
                say(f"{fault}; it was written again from the trial's checkpoint")
            elif damaged:
                say(f"{fault}; there is no checkpoint to write it again from")
                trace.rename(trace.with_suffix(".damaged"))


def _repaired(trial: TrialPaths) -> bool:
    trial.remote_copy.pull()
    try:
        state = last_good_checkpoint(trial.folder)
    except DataError:
        return False
    if state is None:
        return False
    write_trace(trial.trace, trial.trial_id, records_from_plain(state["records"]))
    trial.remote_copy.push()
    return True
