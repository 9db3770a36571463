"""The folder of a run: `<storage.path>/<name>/` with `space.yaml`, `run.json`, `study.log`, `trials/`, `rank_trace/`.

One driver at a time uses it, by a lock that the operating system releases when the driver dies.
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

from faar_ray.config.trial import with_dotted
from faar_ray.errors import ConfigError, DataError
from faar_ray.records import TrialResult
from faar_ray.storage.atomic import atomic_write, atomic_write_or_storage_error, check_writable, clear_leftovers
from faar_ray.storage.interruption import NOTE, clear_note
from faar_ray.storage.run_location import RunLocation, location_of
from faar_ray.tracking.files.finish import repair_trial_files, trace_fault
from faar_ray.tune.space.space import SearchSpace

MAY_CHANGE = ("budget", "resources", "failure", "storage", "name", "tracking.uri")
"""Sections and keys that a resumed search may change: no trial's config depends on them."""
FILES = (
    *("space.yaml", "run.json", "study.log", "results.parquet", "report", "trials", "rank_trace", ".ray", ".lock"),
    NOTE,
)
"""What a run's folder holds."""


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
        """Ray's own files, deleted at the end."""
        return self.path / ".ray"

    def close(self) -> None:
        """Release the run."""
        shutil.rmtree(self.ray, ignore_errors=True)
        self.lock.release()


def run_location_of(space: SearchSpace, name: str) -> RunLocation:
    """Where a run is."""
    return location_of(space.storage.path, name)


def check_resumable(path: Path, space: SearchSpace, *, resume: bool) -> None:
    """Refuse a name in use without `--resume`, or a run to resume whose search space differs; nothing is changed.

    Raises:
        ConfigError: naming which.
    """
    if resume:
        if not (path / "space.yaml").is_file():
            raise ConfigError(f"--resume: there is no run in {path}; without --resume it is started")
        if faults := list(differences(with_defaults(stored_space(path)), resolved(space))):
            raise ConfigError([f"--resume: {fault}" for fault in faults])
    else:
        check_free(path)


def with_first_checkpoint(path: Path, space: SearchSpace) -> tuple[SearchSpace, dict[str, str]]:
    """A space to resume with the `backbone.checkpoint` of its start, by which its trials are known.

    Returns:
        The space, and that file -> the file that the space names now. Unchanged where they are one, or where the run
        has not recorded what weights it had: then the names tell whether they are the same.
    """
    if not (path / "space.yaml").is_file():
        return space, {}
    first = stored_space(path).get("base", {}).get("backbone", {}).get("checkpoint")
    now = space.trial_config({}).backbone.checkpoint
    if first == now or now is None or first not in read_run(path).get("weights", {}):
        return space, {}
    return space.model_copy(update={"base": with_dotted(space.base, {"backbone.checkpoint": first})}), {first: now}


def with_checkpoint(space: SearchSpace, other: SearchSpace) -> SearchSpace:
    """The space with another one's base."""
    return space.model_copy(update={"base": other.base})


def has_begun(path: Path) -> bool:
    """Whether any trial of a run has written a file."""
    return any(file.is_file() for file in (path / "trials").rglob("*"))


def check_free(path: Path) -> None:
    """Refuse a folder that holds anything but what is left of a search that ended before any trial began.

    Raises:
        ConfigError: naming it.
    """
    if path.exists() and (not path.is_dir() or has_begun(path) or any(not _is_ours(entry) for entry in path.iterdir())):
        raise ConfigError(f"name: {path} exists already: --resume goes on with it, --name NEW starts another")


def _is_ours(entry: Path) -> bool:
    return entry.name in FILES or entry.suffix == ".tmp" or entry.name.startswith("study.log.")


def lock_run(path: Path, space: SearchSpace, *, fresh: bool = False, is_copy: bool = False) -> RunFolder:
    """Make or take the folder.

    Args:
        path: the folder.
        space: what is searched.
        fresh: start a search; what an earlier one left that ended before any trial began is deleted.
        is_copy: the folder is a working copy, perhaps of another run of this name.

    Raises:
        ConfigError: another driver uses it, or it cannot be written.
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
        if fresh and not is_copy:
            check_free(path)  # another driver may have had it since it was looked at
        _prepare(folder, space, emptied=fresh)
    except ConfigError:
        folder.close()
        raise
    except OSError as fault:
        folder.close()
        raise ConfigError(f"storage.path: {path} cannot be written ({fault.strerror})") from None
    return folder


def _prepare(folder: RunFolder, space: SearchSpace, *, emptied: bool) -> None:
    shutil.rmtree(folder.ray, ignore_errors=True)
    for old in folder.path.iterdir() if emptied else ():
        if old.is_dir():
            shutil.rmtree(old)
        elif old.name not in (".lock", "run.json"):  # the latter knows an MLflow run that is open perhaps
            old.unlink()
    for part in ("trials", "rank_trace"):
        (folder.path / part).mkdir(exist_ok=True)
    for place in (
        folder.path,
        folder.path / "rank_trace",
    ):  # of a killed driver or trial; a trial clears its own folder
        clear_leftovers(place)
    clear_note(folder.path)
    with atomic_write(folder.space_file) as scratch:
        scratch.write_text(as_yaml(space))


def write_run(folder: RunFolder, facts: Mapping[str, Any]) -> None:
    """`run.json`: name, tracking_uri, parent_run_id, objectives."""
    with atomic_write_or_storage_error(folder.path / "run.json") as scratch:
        scratch.write_text(json.dumps(facts, indent=1))


def read_run(path: Path) -> dict[str, Any]:
    """`run.json`; empty where a killed driver had not written it yet."""
    try:
        facts: dict[str, Any] = json.loads((path / "run.json").read_text())
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
    """The space that a run was started with, as plain values.

    Raises:
        DataError: it is not readable.
    """
    try:
        stored = yaml.safe_load((path / "space.yaml").read_text())
    except (OSError, UnicodeDecodeError, yaml.YAMLError) as fault:
        raise DataError(f"{path / 'space.yaml'}: is not readable ({fault})") from None
    if not isinstance(stored, dict):
        raise DataError(f"{path / 'space.yaml'}: is not a search space")
    return stored


def recorded_tracking(path: Path) -> dict[str, Any]:
    """The section `tracking` of the run, without a `uri` whose database file is gone; empty where there is no run."""
    section = stored_space(path).get("tracking") if (path / "space.yaml").is_file() else None
    if not isinstance(section, dict):
        return {}
    from faar_ray.tracking.mlflow.store import database_file  # MLflow takes seconds to import

    file = database_file(str(section.get("uri")))
    return {key: value for key, value in section.items() if key != "uri" or file is None or file.is_file()}


def with_defaults(stored: dict[str, Any]) -> dict[str, Any]:
    """A stored space with the defaults of keys that are newer than the run."""
    try:
        return resolved(SearchSpace.model_validate(stored))
    except ValidationError:
        return stored


def differences(old: Mapping[str, Any], new: Mapping[str, Any]) -> Iterator[str]:
    """Changes of a space that a resumed search must not have, one sentence each."""
    before, after = dict(_flat(old)), dict(_flat(new))
    for key in [*before, *(key for key in after if key not in before)]:
        if not {key, key.split(".")[0]} & set(MAY_CHANGE) and before.get(key) != after.get(key):
            was, now = (json.dumps(side[key]) if key in side else "absent" for side in (before, after))
            yield f"{key} was {was} when the run was started and is {now} now; a new --name starts another run"


def _flat(tree: Mapping[str, Any], prefix: str = "") -> Iterator[tuple[str, Any]]:
    for key, value in tree.items():
        if isinstance(value, Mapping) and value:
            yield from _flat(value, f"{prefix}{key}.")
        else:
            yield f"{prefix}{key}", value


def repair_traces(place: RunLocation, results: Sequence[TrialResult], notify: Callable[[str], None]) -> None:
    """Complete the files of trials that have ended, from their records: a killed process could not do it.

    Args:
        place: of the run.
        results: trials that have ended; the others complete their files when they end.
        notify: receives what was damaged.
    """
    for result in results:
        trial = place.trial(result.trial_id)
        fault, is_damaged = trace_fault(trial), trial.trace.exists()
        try:
            if repair_trial_files(trial) and fault is not None and is_damaged:
                notify(f"{fault}; it was written again from the trial's records")
        except DataError as error:
            notify(f"{fault or error}; there are no records to write it again from")
            if fault is not None and is_damaged:
                trial.trace.rename(trial.trace.with_suffix(".damaged"))
