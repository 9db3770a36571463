"""How far a search is that has not come to its end: it runs, was interrupted, or was killed.

The journal is the truth then: `results.parquet` is written when a search ends or is interrupted, and may be older.
"""

from __future__ import annotations

import dataclasses
import fcntl
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import optuna
import yaml

from faar_ray.config.trial import TrialConfig, config_id
from faar_ray.errors import DataError
from faar_ray.records import BUDGET, Role, TrialResult, known, result_of
from faar_ray.storage.interruption import read_note
from faar_ray.storage.run_location import TrialPaths
from faar_ray.tracking.files.epoch_file import read_epochs

TRIAL_ID = "trial_id"
RESULT = "result"
"""User attribute of an Optuna trial: how it ended."""
POINT_RESULT = "point/"
"""With a point's id, user attribute of its trunk's trial: how it ended."""
STUDY_RESULT = "result/"
"""With a trial id, user attribute of the study: how a control or a reference ended."""
PREFIX = "prefix/"
"""With the name of a prefix that trials share, user attribute of the study: what it is, and whether it is trained."""
TEST_RESULT = "test/"
"""With a trial id: its metrics on the test split."""
ENDED = "ended"
"""User attribute of the study: 1 once the search came to its end, 0 from a resume on."""
WARM_START = "warm_start"
"""User attribute of the trials of an older run, and of the study once it has them."""
LOG1M = "1 - "
"""Before the name of a parameter that Optuna sees as 1 - x."""
DIGITS = 12
"""1 - (1 - x) is x again to this many."""

How = Literal["finished", "running", "stopped", "unknown"]


@dataclass(frozen=True)
class Progress:
    """How far a search is."""

    how: How
    """`unknown`: it is not finished, and whether it runs cannot be seen from here."""
    trials: int
    """Budget; 0 where the search space does not tell."""
    states: Mapping[str, int]
    """Number of trials by state, without references and controls."""
    beside: int
    """References and controls that have not ended."""
    note: str
    """What an interrupted search left: its cause, and the command that goes on."""

    def __str__(self) -> str:
        """One sentence for a search that is not finished, else ""."""
        if self.how == "finished":
            return ""
        what = {"running": "it is running", "stopped": "it was interrupted or killed"}
        unended = "running" if self.how == "running" else "lost" if self.how == "stopped" else "running or lost"
        words = {"COMPLETE": "complete", "PRUNED": "stopped early", "FAIL": "failed", "RUNNING": unended}
        parts = [f"{self.states.get(state, 0)} {word}" for state, word in words.items() if self._shown(state)]
        of = f" of {self.trials}" if self.trials else ""
        also = f", and {self.beside} references or controls {unended}" if self.beside else ""
        goes_on = "; --resume goes on with what was lost" if self.how == "stopped" else ""
        return (
            f"This search is not finished: {what.get(self.how, 'it is running, or was interrupted or killed')}. "
            f"Of its trials{of}: {', '.join(parts)}{also}{goes_on}."
        )

    def _shown(self, state: str) -> bool:
        return state in ("COMPLETE", "RUNNING") or bool(self.states.get(state))


def progress_of(folder: Path, study: optuna.Study | None, results: Sequence[TrialResult]) -> Progress:
    """How far the search in a folder is.

    Args:
        folder: of the run.
        study: its journal; a folder without one has only what a search leaves that ended.
        results: all trials, open ones too (`open_trials`).
    """
    how: How = "finished" if study is None or study.user_attrs.get(ENDED) else _how(folder)
    states = Counter(str(result.state) for result in results if result.role == "trial")
    beside = sum(result.state == "RUNNING" for result in results if result.role != "trial")
    return Progress(how, _budget(folder), states, beside, "" if how == "finished" else read_note(folder))


def _how(folder: Path) -> How:
    """Whether a driver holds the run's lock; a copy from object storage has none."""
    try:
        with (folder / ".lock").open("rb") as lock:
            fcntl.flock(lock, fcntl.LOCK_SH | fcntl.LOCK_NB)
    except BlockingIOError:
        return "running"
    except OSError:
        return "stopped" if read_note(folder) else "unknown"
    return "stopped"


def _budget(folder: Path) -> int:
    try:
        return int(yaml.safe_load((folder / "space.yaml").read_text(encoding="utf-8"))["budget"]["trials"])
    except (OSError, UnicodeDecodeError, yaml.YAMLError, KeyError, TypeError, ValueError):
        return 0


def journalled(study: optuna.Study) -> list[TrialResult]:
    """All jobs that ended, with their test metrics: references and controls first, then trials by number, each with its
    points behind it."""
    attrs = study.user_attrs
    beside = [result_of(attrs[name]) for name in sorted(attrs) if name.startswith(STUDY_RESULT)]
    trials = [trial.user_attrs for trial in study.get_trials(deepcopy=False)]
    ended = beside + [result_of(of_trial[name]) for of_trial in trials for name in _result_names(of_trial)]
    tested = tests(study)
    return [
        dataclasses.replace(result, metrics={**result.metrics, **tested.get(result.trial_id, {})}) for result in ended
    ]


def _result_names(attrs: Mapping[str, Any]) -> list[str]:
    """User attributes of a trial that say how it and its points ended."""
    return [name for name in (RESULT, *point_names(attrs)) if name in attrs]


def point_names(attrs: Mapping[str, Any]) -> list[str]:
    """User attributes of a trunk's trial that say how its points ended, the smallest size first."""
    names = [name for name in attrs if name.startswith(POINT_RESULT)]
    return sorted(names, key=lambda name: (attrs[name]["params"][BUDGET], name))


def tests(study: optuna.Study) -> dict[str, dict[str, float]]:
    """Metrics on the test split, by trial id."""
    attrs = study.user_attrs
    return {name.removeprefix(TEST_RESULT): known(attrs[name]) for name in attrs if name.startswith(TEST_RESULT)}


def open_trials(folder: Path, study: optuna.Study, ended: Sequence[TrialResult]) -> list[TrialResult]:
    """Trials, controls and references that began and have not ended, with what their last epoch gave."""
    over = {result.trial_id for result in ended}
    sampled: dict[str, dict[str, Any]] = {
        trial.user_attrs[TRIAL_ID]: _outward(trial.params)
        for trial in study.get_trials(deepcopy=False)
        if TRIAL_ID in trial.user_attrs and WARM_START not in trial.user_attrs
    }
    prefixes = {name.removeprefix(PREFIX) for name in study.user_attrs if name.startswith(PREFIX)}
    begun = {path.name for path in folder.glob("trials/*") if path.is_dir()} - prefixes
    sampled |= {name: dict(sampled[trunk]) for name in begun for trunk in sampled if name.startswith(f"{trunk}-")}
    return [_open_trial(folder, name, sampled) for name in sorted({*sampled, *begun} - over)]


def _open_trial(folder: Path, trial_id: str, sampled: Mapping[str, dict[str, Any]]) -> TrialResult:
    config, params = _config(folder / "trials" / trial_id), sampled.get(trial_id, {})
    role: Role = "trial" if trial_id in sampled else "reference" if trial_id.startswith("ref-") else "control"
    parent, inherited = "", 0
    if trial_id.count("-") > 1 and role == "trial":
        role, parent = "point", trial_id.rpartition("-")[0]
        if config is not None:
            params = params | {BUDGET: config.ranks.budget}
            inherited = config.spectral.cut_after(config.optim.epochs) + 1
    try:
        epochs = read_epochs(TrialPaths(folder, trial_id))
    except DataError:  # a part that is damaged, or just replaced
        epochs = {}
    seconds = sum(metrics.get("time/epoch_s", 0.0) for at, metrics in epochs.items() if at >= inherited)
    last = known(epochs[max(epochs)]) if epochs else {}
    name, seed = (config_id(config), config.seed) if config else (trial_id, 0)
    own = max(0, len(epochs) - inherited)
    so_far = (params, last, seconds, own)
    return TrialResult(trial_id, name, seed, role, "RUNNING", *so_far, parent=parent, inherited=inherited)


def _config(folder: Path) -> TrialConfig | None:
    try:
        return TrialConfig.resolve(yaml.safe_load((folder / "config.yaml").read_text(encoding="utf-8")))
    except (OSError, yaml.YAMLError, ValueError, AttributeError, TypeError):
        return None


def _outward(params: Mapping[str, Any]) -> dict[str, Any]:
    """Parameters by their keys, as the search space has them."""
    return {
        name.removeprefix(LOG1M): round(1 - value, DIGITS) if name.startswith(LOG1M) else value
        for name, value in params.items()
    }
