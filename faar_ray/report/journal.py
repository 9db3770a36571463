"""The search's Optuna journal, for reading: parameters as they were drawn, and when trials ended."""

from __future__ import annotations

import warnings
from pathlib import Path

import optuna
from optuna.storages import JournalStorage
from optuna.storages.journal import JournalFileBackend


def read_study(folder: Path) -> optuna.Study | None:
    """The study in `study.log` of a run's folder; None without one that can be read."""
    path = folder / "study.log"
    if not path.is_file():
        return None
    optuna.logging.set_verbosity(optuna.logging.ERROR)
    with warnings.catch_warnings(action="ignore", category=optuna.exceptions.ExperimentalWarning):
        try:
            return optuna.load_study(study_name=None, storage=JournalStorage(JournalFileBackend(str(path))))
        except (ValueError, KeyError, TypeError, AttributeError, OSError):  # whatever a damaged line leads to
            return None


def ended_order(study: optuna.Study | None) -> dict[str, int]:
    """Place of each trial id in the order in which trials ended."""
    trials = study.get_trials(deepcopy=False) if study is not None else []
    ended = sorted((t for t in trials if t.datetime_complete), key=lambda t: (t.datetime_complete, t.number))
    return {str(t.user_attrs.get("trial_id")): place for place, t in enumerate(ended)}
