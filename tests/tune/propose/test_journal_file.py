"""Optuna's journal with one writer: a transaction is whole on disk, and anybody's Optuna reads it."""

from __future__ import annotations

import os
from collections.abc import Callable
from pathlib import Path

import optuna
import pytest
from optuna.storages import JournalStorage
from optuna.storages.journal import JournalFileBackend

from faar_ray.tune.propose.journal_file import JournalFile, transaction


@pytest.fixture
def syncs(monkeypatch: pytest.MonkeyPatch) -> list[int]:
    """One entry for each fsync."""
    made, real = list[int](), os.fsync

    def counted(fd: int) -> None:
        made.append(fd)
        real(fd)

    monkeypatch.setattr(os, "fsync", counted)
    return made


def study_of(path: Path) -> optuna.Study:
    storage = JournalStorage(JournalFile(path))
    return optuna.create_study(storage=storage, study_name="one", load_if_exists=True)


def lines(path: Path) -> int:
    return path.read_bytes().count(b"\n")


def test_a_transaction_is_one_fsync_and_is_on_disk_at_its_end(tmp_path: Path, syncs: list[int]) -> None:
    path = tmp_path / "j"
    study = study_of(path)
    before, made = lines(path), len(syncs)
    with transaction(study):
        trial = study.ask()
        trial.suggest_float("x", 0, 1)
        with transaction(study):
            trial.set_user_attr("a", [1, 2])
        assert study.trials[0].user_attrs == {"a": [1, 2]}
        assert lines(path) == before
    assert lines(path) == before + 3
    assert len(syncs) == made + 1


def test_what_is_written_outside_a_transaction_is_on_disk_at_once(tmp_path: Path, syncs: list[int]) -> None:
    study = study_of(tmp_path / "j")
    made = len(syncs)
    study.set_user_attr("a", 1)
    assert b'"a":1' in (tmp_path / "j").read_bytes()
    assert len(syncs) == made + 1


def test_a_transaction_that_raises_keeps_what_was_done(tmp_path: Path) -> None:
    study = study_of(tmp_path / "j")

    def begin() -> None:
        with transaction(study):
            study.ask().set_user_attr("a", 1)
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        begin()
    assert [trial.user_attrs for trial in study_of(tmp_path / "j").trials] == [{"a": 1}]


@pytest.mark.parametrize("backend", [JournalFile, lambda path: JournalFileBackend(str(path))], ids=["ours", "optuna's"])
def test_a_second_reader_sees_the_same_study(tmp_path: Path, backend: Callable[[Path], JournalFileBackend]) -> None:
    study = study_of(tmp_path / "j")
    for number in range(5):
        with transaction(study):
            trial = study.ask()
            trial.set_user_attr("number", number)
            study.tell(trial, trial.suggest_float("x", 0, 1))
    again = optuna.load_study(study_name="one", storage=JournalStorage(backend(tmp_path / "j")))
    assert again.trials == study.trials
    assert [trial.user_attrs["number"] for trial in again.trials] == list(range(5))


def test_a_study_that_was_read_goes_on(tmp_path: Path) -> None:
    study_of(tmp_path / "j").ask()
    again = study_of(tmp_path / "j")
    again.tell(0, 1.0)
    again.ask()
    assert [trial.state.name for trial in study_of(tmp_path / "j").trials] == ["COMPLETE", "RUNNING"]
