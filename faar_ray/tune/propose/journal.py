"""The Optuna journal of a run (`study.log`): the one truth about which trials exist and how they ended.

Controls and references are no trials of the study; how they ended is kept in its user attributes.
"""

from __future__ import annotations

import contextlib
import dataclasses
import json
import os
import warnings
from collections.abc import Generator, Iterator, Mapping, Sequence
from contextlib import contextmanager
from contextvars import ContextVar
from pathlib import Path
from typing import Any

import optuna
from optuna.storages import JournalStorage
from optuna.storages.journal import JournalFileBackend
from optuna.trial import FrozenTrial, TrialState

from faar_ray.errors import DataError
from faar_ray.objectives.metrics import Objective
from faar_ray.records import TrialResult, result_of

RESULT = "result"
STUDY_RESULT = "result/"
TEST_RESULT = "test/"
EPOCH = "epoch/"
"""With the epoch's number: what the scheduler saw of it."""
PARENT = "parent"
"""Of a trial that goes on from another one's checkpoint: its id."""
WARM_START = "warm_start"
"""Marks the trials of an older run, and the study once it has them."""
OLDER_ID = "warm_start_trial"
SPENT = ("elapsed_s", "gpu_hours", "usd")


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
        study = optuna.create_study(storage=storage, study_name=name, directions=directions, load_if_exists=True)
    except (ValueError, KeyError, TypeError) as fault:
        raise DataError(f"{path}: is not a readable Optuna journal ({fault})") from fault
    if [direction.name.lower() for direction in study.directions] != directions:
        raise DataError(f"{path}: holds a study with other objectives")
    return study


def read_journal(path: Path) -> optuna.Study:
    """The journal of another search, which may be running: nothing of it is touched.

    Raises:
        DataError: the file is no journal of a search.
    """
    optuna.logging.set_verbosity(optuna.logging.ERROR)
    try:
        return optuna.load_study(study_name=None, storage=JournalStorage(JournalFileBackend(str(path))))
    except (ValueError, KeyError, TypeError) as fault:
        raise DataError(f"{path}: is not a readable Optuna journal ({fault})") from fault


def _clean_up_after_a_kill(path: Path) -> None:
    """Cut a half-written last line and remove the lock of a writer that is no more."""
    for left in path.parent.glob(path.name + ".lock*"):
        left.unlink(missing_ok=True)
    if not path.exists():
        return
    raw = path.read_bytes()
    if raw and not raw.endswith(b"\n"):
        with path.open("rb+") as file:
            file.truncate(raw.rfind(b"\n") + 1)


def keep_result(study: optuna.Study, result: TrialResult, trial: optuna.Trial | None) -> None:
    """Write down how a job ended, before Optuna is told: what was written down is never trained again."""
    row = dataclasses.asdict(result)
    if trial is None:
        study.set_user_attr(STUDY_RESULT + result.trial_id, row)
        return
    for key, value in {**readable(result), RESULT: row}.items():
        trial.set_user_attr(key, value)


def readable(result: TrialResult) -> dict[str, Any]:
    """What optuna-dashboard shows beside a trial."""
    shown: dict[str, Any] = {
        name: result.metrics[name]
        for name in ("rank/mean", "trainable_params", "params/adapters")
        if name in result.metrics
    }
    facts = {"seconds": result.seconds, "epochs": result.epochs, "mlflow_run_id": result.run_id}
    return {**shown, **facts, "reason": result.reason}


def keep_test(study: optuna.Study, trial_id: str, metrics: Mapping[str, float]) -> None:
    """Write down what the test split gave, apart from what the search compares."""
    study.set_user_attr(TEST_RESULT + trial_id, dict(metrics))


def keep_spent(study: optuna.Study, amounts: Mapping[str, float]) -> None:
    """Write down what the search has spent so far."""
    for name in amounts:
        study.set_user_attr(name, amounts[name])


def spent(study: optuna.Study) -> dict[str, float]:
    """What drivers before have spent."""
    attrs = study.user_attrs
    return {name: float(attrs[name]) for name in SPENT if name in attrs}


def live(study: optuna.Study, number: int) -> optuna.Trial:
    """The trial of a number that is RUNNING, as `ask` gave it; its sampler draws what is still missing."""
    return optuna.Trial(study, trials(study)[number]._trial_id)


def results(study: optuna.Study) -> list[TrialResult]:
    """All that ended, with what the test split gave: references and controls first, then trials by number."""
    attrs = study.user_attrs
    kept = [attrs[name] for name in sorted(attrs) if name.startswith(STUDY_RESULT)]
    rows = kept + [trial.user_attrs[RESULT] for trial in trials(study) if RESULT in trial.user_attrs]
    tested = tests(study)
    return [result_of(row | {"metrics": row["metrics"] | tested.get(row["trial_id"], {})}) for row in rows]


def tests(study: optuna.Study) -> dict[str, dict[str, float]]:
    """What the test split gave, by trial id."""
    attrs = study.user_attrs
    return {name.removeprefix(TEST_RESULT): attrs[name] for name in attrs if name.startswith(TEST_RESULT)}


def copied(study: optuna.Study) -> set[str]:
    """Ids of trials that began with another one's checkpoint: their values are not those of their whole training."""
    return {trial.user_attrs["trial_id"] for trial in trials(study) if {PARENT, "trial_id"} <= trial.user_attrs.keys()}


def trials(study: optuna.Study, *states: TrialState) -> list[FrozenTrial]:
    """Trials of the study by number, first those of an older run; all states when none is given."""
    return study.get_trials(deepcopy=False, states=states or None)


def own(study: optuna.Study, *states: TrialState) -> list[FrozenTrial]:
    """The same without those of an older run."""
    return [trial for trial in trials(study, *states) if WARM_START not in trial.user_attrs]


def older(study: optuna.Study) -> list[FrozenTrial]:
    """Trials of an older run: the sampler learns from them, nobody else hears of them."""
    return [trial for trial in trials(study, TrialState.COMPLETE) if WARM_START in trial.user_attrs]


class JournalFile(JournalFileBackend):
    """Optuna's own file and format, for one storage: the run's lock keeps other drivers out, so that no lock is taken
    for a line, and what was written here is not read again.

    Args:
        path: the file; made when missing.
    """

    def __init__(self, path: Path) -> None:
        super().__init__(str(path))
        self.path = path
        self._unread: list[str] = []
        self._unwritten: list[str] = []

    def append_logs(self, logs: list[dict[str, Any]]) -> None:
        """Take lines; they are on disk at the end of the event, or now where there is none."""
        lines = [json.dumps(log, separators=(",", ":")) for log in logs]
        self._unread += lines
        self._unwritten += lines
        if (files := _EVENT.get()) is not None:
            files.add(self)
        else:
            self.write()

    def read_logs(self, log_number_from: int) -> Generator[dict[str, Any], None, None]:
        """The file at first, then what was appended since."""
        if log_number_from == 0:
            self.write()
            self._unread.clear()
            yield from super().read_logs(0)
        while self._unread:
            yield json.loads(self._unread.pop(0))

    def write(self) -> None:
        """Make what was taken durable."""
        if not self._unwritten:
            return
        whole = self.path.stat().st_size
        try:
            with self.path.open("ab") as file:
                file.write("".join(line + "\n" for line in self._unwritten).encode())
                file.flush()
                os.fsync(file.fileno())
        except OSError:  # a later event must not stand behind half of this one
            with contextlib.suppress(OSError):
                os.truncate(self.path, whole)
            raise
        self._unwritten = []


_EVENT: ContextVar[set[JournalFile] | None] = ContextVar("event", default=None)


@contextmanager
def event() -> Iterator[None]:
    """What the block appends is on disk at its end, however it ends; of a driver killed before, nothing is."""
    if _EVENT.get() is not None:
        yield
        return
    files = set[JournalFile]()
    token = _EVENT.set(files)
    try:
        yield
    finally:
        _EVENT.reset(token)
        for file in files:
            file.write()
