"""Reads the inputs of a report from a run's folder."""

from __future__ import annotations

import json
import warnings
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import optuna
import pyarrow as pa
import yaml
from optuna.storages import JournalStorage
from optuna.storages.journal import JournalFileBackend
from pydantic import ValidationError

from faar_ray.config.paths import is_remote
from faar_ray.config.secrets import take_credentials, without_secrets
from faar_ray.config.trial import TrialConfig
from faar_ray.errors import ConfigError, DataError
from faar_ray.objectives.constraint import Constraint, parse_constraint
from faar_ray.objectives.metrics import Objective, study_objectives
from faar_ray.records import TrialResult
from faar_ray.report.progress import ENDED, Progress, journalled, open_trials, progress_of
from faar_ray.report.results import read_results
from faar_ray.storage.interruption import NOTE
from faar_ray.storage.run_location import RunLocation, TrialPaths, download_run
from faar_ray.tracking.files.trial_files import read_trial_ranks


@dataclass(frozen=True)
class Search:
    """One search on disk, finished or not."""

    folder: Path
    name: str
    tracking_uri: str
    parent_run_id: str
    objectives: tuple[Objective, ...]
    space_yaml: str
    results: Sequence[TrialResult]
    traces: Mapping[str, pa.Table]
    """Rank trace per trial id."""
    progress: Progress

    @property
    def limits(self) -> tuple[Constraint, ...]:
        """The constraints of the search space; none where this version of the package cannot read it."""
        try:
            texts = yaml.safe_load(self.space_yaml).get("constraints") or ()
            return tuple(limit for text in texts if (limit := parse_constraint(text)))
        except (yaml.YAMLError, AttributeError, TypeError):
            return ()

    @property
    def study_objectives(self) -> tuple[Objective, ...]:
        """What the sampler saw: the objectives, or one value for a whole front."""
        try:
            front = yaml.safe_load(self.space_yaml).get("front")
        except (yaml.YAMLError, AttributeError):
            front = None
        return self.objectives if front is None else study_objectives(self.objectives)

    @property
    def listed(self) -> bool:
        """Whether the configurations were listed (grid or points), each on several seeds."""
        try:
            search = yaml.safe_load(self.space_yaml)["search"]
            return search["sampler"] in ("grid", "points") and search["seeds"] > 1
        except (yaml.YAMLError, KeyError, TypeError):
            return False

    @property
    def scheduler(self) -> str:
        """Its rule of early stopping; "" where the space does not tell."""
        try:
            return str(yaml.safe_load(self.space_yaml)["scheduler"]["type"])
        except (yaml.YAMLError, KeyError, TypeError):
            return ""

    @property
    def base(self) -> TrialConfig | None:
        """The base config of all trials; None where this version of the package cannot read it."""
        try:
            raw = yaml.safe_load(self.space_yaml)
            return TrialConfig.resolve(raw.get("base") or {})
        except (yaml.YAMLError, AttributeError, TypeError, ValidationError):
            return None


def find_run(name_or_path: str) -> RunLocation:
    """Find a run by its path, its name under `./runs`, or its URI; of a URI the files of a report are downloaded.

    Raises:
        ConfigError: there is none, or it is not a run.
    """
    if is_remote(name_or_path):
        return download_run(name_or_path, "run.json", "space.yaml", "results.parquet", "study.log", "rank_trace", NOTE)
    candidates = [Path(name_or_path), Path("runs") / name_or_path]
    folder = next((path for path in candidates if path.is_dir()), None)
    if folder is None:
        known = sorted(p.name for p in Path("runs").glob("*") if p.is_dir())
        hint = f" (runs has: {', '.join(known)})" if known else ""
        raise ConfigError(f"{name_or_path}: no such folder, and no run of that name under ./runs{hint}")
    if not any((folder / name).is_file() for name in ("run.json", "study.log")):
        raise ConfigError(f"{folder}: not a run of faar_ray.tune: run.json and study.log are missing")
    return RunLocation(folder)


def read_search(folder: Path) -> Search:
    """Read a run's folder, also of a search that is not finished.

    Raises:
        DataError: naming the file that is missing or broken.
    """
    run = _read_run(folder)
    space = folder / "space.yaml"
    study = read_journal_or_none(folder)
    results = _read_results(folder, study)
    return Search(
        folder=folder,
        name=str(run["name"]),
        tracking_uri=take_credentials(str(run["tracking_uri"])),
        parent_run_id=str(run["parent_run_id"]),
        objectives=tuple(Objective(name=o["name"], goal=o["goal"]) for o in run["objectives"]),
        space_yaml=without_secrets(space.read_text(encoding="utf-8")) if space.is_file() else "",
        results=results,
        traces={name: read_trial_ranks(TrialPaths(folder, name)) for name in _traced(folder)},
        progress=progress_of(folder, study, results),
    )


def _read_results(folder: Path, study: optuna.Study | None) -> list[TrialResult]:
    """Of `results.parquet`; of the journal and the trials' files where the search has not ended."""
    path = folder / "results.parquet"
    if study is None or study.user_attrs.get(ENDED):
        return read_results(path)
    ended = journalled(study)
    return [*ended, *open_trials(folder, study, ended)]


def _traced(folder: Path) -> list[str]:
    """Trials with a rank trace, or with parts of one: they run, or their process was killed."""
    whole = {path.stem for path in folder.glob("rank_trace/*.parquet")}
    return sorted(whole | {path.parents[1].name for path in folder.glob("trials/*/records/epoch_*.parquet")})


def _read_run(folder: Path) -> dict[str, Any]:
    path = folder / "run.json"
    try:
        run = json.loads(path.read_text(encoding="utf-8"))
    except FileNotFoundError:
        return _run_before_mlflow(folder)
    except (json.JSONDecodeError, UnicodeDecodeError) as fault:
        raise DataError(f"{path}: not JSON ({fault})") from None
    lacking = [k for k in ("name", "tracking_uri", "parent_run_id", "objectives") if k not in run]
    if lacking:
        raise DataError(f"{path}: {', '.join(lacking)} missing")
    return dict(run)


def _run_before_mlflow(folder: Path) -> dict[str, Any]:
    """What `run.json` will hold, of a search that has not opened MLflow yet, or never did."""
    try:
        space = yaml.safe_load((folder / "space.yaml").read_text(encoding="utf-8"))
        facts = {"name": space["name"], "objectives": space["objectives"], "tracking_uri": space["tracking"]["uri"]}
    except (OSError, UnicodeDecodeError, yaml.YAMLError, KeyError, TypeError):
        raise DataError(f"{folder / 'run.json'}: missing; is this a run of faar_ray.tune?") from None
    return facts | {"parent_run_id": ""}


def read_journal_or_none(folder: Path) -> optuna.Study | None:
    """The study in `study.log` of a run's folder; None without one that can be read."""
    path = folder / "study.log"
    if not path.is_file():
        return None
    optuna.logging.set_verbosity(optuna.logging.ERROR)
    with warnings.catch_warnings(action="ignore", category=optuna.exceptions.ExperimentalWarning):
        try:
            return optuna.load_study(study_name=None, storage=JournalStorage(JournalFileBackend(str(path))))
        except (ValueError, KeyError, TypeError, AttributeError, OSError):  # of a damaged line
            return None


def limit_of(study: optuna.Study | None) -> str:
    """What ended the search early, as its journal says; "" for nothing."""
    return str(study.user_attrs.get("limit", "")) if study is not None else ""


def ended_order(study: optuna.Study | None) -> dict[str, int]:
    """Position of each trial id in the order in which trials ended."""
    trials = study.get_trials(deepcopy=False) if study is not None else []
    ended = sorted((t for t in trials if t.datetime_complete), key=lambda t: (t.datetime_complete, t.number))
    return {str(t.user_attrs.get("trial_id")): place for place, t in enumerate(ended)}
