"""The Optuna journal of a run (`study.log`): it decides which trials exist and how they ended.

Controls and references are no trials of the study; their results are kept in the study's user attributes.
"""

from __future__ import annotations

import dataclasses
import math
import warnings
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import optuna
from optuna.storages import JournalStorage
from optuna.storages.journal import JournalFileBackend
from optuna.trial import FrozenTrial, TrialState

from faar_ray.errors import DataError
from faar_ray.objectives.metrics import Objective
from faar_ray.records import TrialResult, json_metrics, known, row_of
from faar_ray.report.progress import ENDED, RESULT, STUDY_RESULT, TEST_RESULT
from faar_ray.report.progress import journalled as results
from faar_ray.report.progress import tests as tests
from faar_ray.tune.propose.journal_file import JournalFile
from faar_ray.tune.propose.trial_record import TrialRecord
from faar_ray.tune.run.jobs import describe_failure

__all__ = ["results", "tests"]
LIMIT = "limit"
SPENT = ("elapsed_s", "gpu_hours", "usd")
SHOWN_METRICS = ("rank/mean", "trainable_params", "params/adapters")


def open_journal(path: Path, name: str, objectives: Sequence[Objective]) -> optuna.Study:
    """Open or make the journal; only the holder of the run's lock may (it cleans up after a killed driver).

    Raises:
        DataError: the file is not a journal of this search.
    """
    optuna.logging.set_verbosity(optuna.logging.ERROR)
    warnings.simplefilter("ignore", optuna.exceptions.ExperimentalWarning)
    _clean_up_after_a_kill(path)

    try:
        storage = JournalStorage(JournalFile(path))
        directions = [objective.goal for objective in objectives]
        name = next(iter(optuna.get_all_study_names(storage)), name)  # the run may have been renamed since
        study = optuna.create_study(storage=storage, study_name=name, directions=directions, load_if_exists=True)
    except (ValueError, KeyError, TypeError) as fault:
        raise DataError(f"{path}: is not a readable Optuna journal ({fault})") from fault
    if [direction.name.lower() for direction in study.directions] != directions:
        raise DataError(f"{path}: holds a study with other objectives")
    return study


def read_journal(path: Path) -> optuna.Study:
    """The journal of another search, which may be running: the file is not changed.

    Raises:
        DataError: the file is no journal of a search.
    """
    optuna.logging.set_verbosity(optuna.logging.ERROR)
    try:
        return optuna.load_study(study_name=None, storage=JournalStorage(JournalFileBackend(str(path))))
    except (ValueError, KeyError, TypeError) as fault:
        raise DataError(f"{path}: is not a readable Optuna journal ({fault})") from fault


def _clean_up_after_a_kill(path: Path) -> None:
    """Cut a half-written last line and remove the lock of a dead writer."""
    for lock in path.parent.glob(path.name + ".lock*"):
        lock.unlink(missing_ok=True)
    if not path.exists():
        return
    raw = path.read_bytes()
    if raw and not raw.endswith(b"\n"):
        with path.open("rb+") as file:
            file.truncate(raw.rfind(b"\n") + 1)


def keep_result(study: optuna.Study, result: TrialResult, trial: optuna.Trial | None) -> None:
    """Write down how a job ended, before Optuna is told: a job with a result is never trained again."""
    row = row_of(result)
    if trial is None:
        study.set_user_attr(STUDY_RESULT + result.trial_id, row)
        return
    for key, value in {**shown_attributes(result), RESULT: row}.items():
        trial.set_user_attr(key, value)


def with_finite(result: TrialResult, objectives: Sequence[Objective]) -> TrialResult:
    """The result, as a FAIL where it is complete without a finite number for each objective."""
    if result.state != "COMPLETE":
        return result
    values = {o.name: result.metrics.get(o.name, math.nan) for o in objectives}
    bad = [f"{name} is {value}" for name, value in values.items() if not math.isfinite(value)]
    if not bad:
        return result
    reason = describe_failure(f"objective {', '.join(bad)}", result.trial_id, result.params)
    return dataclasses.replace(result, state="FAIL", reason=reason)


def shown_attributes(result: TrialResult) -> dict[str, Any]:
    """What optuna-dashboard shows beside a trial."""
    metrics: dict[str, Any] = known({name: result.metrics.get(name) for name in SHOWN_METRICS})
    facts = {"seconds": result.seconds, "epochs": result.epochs, "mlflow_run_id": result.run_id}
    return {**metrics, **facts, "reason": result.reason}


def keep_test(study: optuna.Study, trial_id: str, metrics: Mapping[str, float]) -> None:
    """Write down the metrics on the test split, apart from those that the search compares."""
    study.set_user_attr(TEST_RESULT + trial_id, json_metrics(metrics))


def finals(study: optuna.Study) -> dict[str, dict[str, float]]:
    """What is known of ended trials beside their epochs, by trial id: metrics on test, and the value of a front."""
    final = tests(study)
    for result in results(study):
        if values := {name: value for name, value in result.metrics.items() if name.startswith("front/")}:
            final[result.trial_id] = final.get(result.trial_id, {}) | values
    return final


def keep_spent(study: optuna.Study, amounts: Mapping[str, float]) -> None:
    """Write down what the search has spent so far."""
    for name in amounts:
        study.set_user_attr(name, amounts[name])


def keep_limit(study: optuna.Study, limit: str) -> None:
    """Write down what ended the search early, "" for nothing."""
    if study.user_attrs.get(LIMIT, "") != limit:
        study.set_user_attr(LIMIT, limit)


def spent(study: optuna.Study) -> dict[str, float]:
    """What drivers before have spent."""
    attrs = study.user_attrs
    return {name: float(attrs[name]) for name in SPENT if name in attrs}


def live(study: optuna.Study, number: int) -> optuna.Trial:
    """The trial of a number that is RUNNING, as `ask` gave it; its sampler draws what is still missing."""
    return optuna.Trial(study, trials(study)[number]._trial_id)


def keep_end(study: optuna.Study, *, ended: bool) -> None:
    """Write down that the search came to its end, or goes on: until then a report calls it unfinished."""
    if bool(study.user_attrs.get(ENDED)) != ended:
        study.set_user_attr(ENDED, int(ended))


def copied(study: optuna.Study) -> set[str]:
    """Ids of trials that began with another one's checkpoint: their values are not those of their whole training."""
    records = map(TrialRecord, trials(study))
    return {record.trial_id for record in records if record.parent and record.trial_id}


def trials(study: optuna.Study, *states: TrialState) -> list[FrozenTrial]:
    """Trials of the study by number, first those of an older run; all states when none is given."""
    return study.get_trials(deepcopy=False, states=states or None)


def own(study: optuna.Study, *states: TrialState) -> list[FrozenTrial]:
    """The same without those of an older run."""
    return [trial for trial in trials(study, *states) if not TrialRecord(trial).is_older]


def older(study: optuna.Study) -> list[FrozenTrial]:
    """Trials of an older run: only the sampler uses them."""
    return [trial for trial in trials(study, TrialState.COMPLETE) if TrialRecord(trial).is_older]
