"""Importances over real journals of Optuna."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import numpy as np
import optuna
import pytest
from optuna.storages import JournalStorage
from optuna.storages.journal import JournalFileBackend

from faar_ray.objectives.metrics import Objective
from faar_ray.report.plots.importance_plot import plot_importance
from faar_ray.report.source import ended_order, read_journal_or_none
from faar_ray.report.statistics.importance import Importances, importances
from faar_ray.report.statistics.noise import Noise
from faar_ray.report.words.importance_words import importance_sentences

Objectives = Callable[[optuna.Trial], tuple[float, float]]


def two(trial: optuna.Trial) -> tuple[float, float]:
    """x decides the first objective, y hardly; k, searched only with `method` b, decides it there too."""
    x, y = trial.suggest_float("1 - x", 0.01, 0.5, log=True), trial.suggest_float("y", 0, 1)
    k = trial.suggest_int("k", 1, 4) if trial.suggest_categorical("method", ["a", "b"]) == "b" else 0
    return -20 * x + 0.05 * y + k, 3.0


def journal(folder: Path, trials: int, objectives: Objectives = two) -> optuna.Study:
    optuna.logging.set_verbosity(optuna.logging.ERROR)
    storage = JournalStorage(JournalFileBackend(str(folder / "study.log")))
    sampler = optuna.samplers.RandomSampler(seed=1)
    study = optuna.create_study(storage=storage, sampler=sampler, directions=["maximize", "minimize"])
    for number in range(trials):
        trial = study.ask()
        values = objectives(trial)
        trial.set_user_attr("trial_id", f"t{number}")
        study.tell(trial, values)
    unfinished = study.ask()
    objectives(unfinished)
    study.tell(unfinished, state=optuna.trial.TrialState.PRUNED)
    read = read_journal_or_none(folder)
    assert read is not None
    return read


def of(study: optuna.Study, sd: float = 0.3, dof: int = 6) -> list[Importances]:
    goals = [Objective(name="delta_m", goal="maximize"), Objective(name="trainable_params", goal="minimize")]
    return importances(study, goals, {g.name: Noise(g.name, sd, dof, True, sd, dof) for g in goals})


def test_what_decides_an_objective_leads_and_what_does_not_is_within_the_noise(tmp_path: Path) -> None:
    first, second = of(journal(tmp_path, 40))
    rows = {row.parameter: row for row in first.rows}

    assert first.rows[0].parameter == "x"
    assert rows["x"].beyond_noise
    assert rows["y"].share < 0.2
    assert second.refused == "it is the same in all finished trials"
    assert plot_importance([first, second], tmp_path / "importance.png")


def test_a_conditional_parameter_is_judged_where_it_is_active(tmp_path: Path) -> None:
    study = journal(tmp_path, 40)
    row = next(row for row in of(study)[0].rows if row.parameter == "k")

    assert row.conditional
    assert row.trials == sum("k" in t.params for t in study.trials if t.state == optuna.trial.TrialState.COMPLETE)
    assert f"over the {row.trials} trials that have it" in " ".join(importance_sentences(of(study)))


def test_large_noise_is_warned_of(tmp_path: Path) -> None:
    (output, _) = importance_sentences(of(journal(tmp_path, 40), sd=50.0))

    assert output.startswith("WARNING: importance for delta_m is within the noise")


def test_unknown_noise_and_few_trials_are_warned_of(tmp_path: Path) -> None:
    output = list(importance_sentences(of(journal(tmp_path, 6), sd=np.nan, dof=0)))

    assert output[0].startswith("WARNING: 6 finished trials are too few")
    assert "seed noise of delta_m is unknown" in output[1]


@pytest.mark.parametrize(
    ("trials", "objectives", "reason"),
    [
        (3, two, "3 trials finished, at least 4 are needed"),
        (9, lambda trial: (trial.suggest_float("x", 0, 1), 1.0), "one parameter was searched"),
    ],
)
def test_it_is_refused_with_the_reason(tmp_path: Path, trials: int, objectives: Objectives, reason: str) -> None:
    (first, _) = of(journal(tmp_path, trials, objectives))

    assert reason in first.refused
    assert not plot_importance([first], tmp_path / "no.png")


def test_older_runs_of_other_ranges_refuse_it(tmp_path: Path) -> None:
    widths = iter([1.0] * 10 + [2.0] * 10)

    def widening(trial: optuna.Trial) -> tuple[float, float]:
        return trial.suggest_float("x", 0, next(widths)) + trial.suggest_float("y", 0, 1), 1.0

    (first, _) = of(journal(tmp_path, 19, widening))
    assert first.refused


def test_the_journal_knows_when_trials_ended_and_may_be_away_or_broken(tmp_path: Path) -> None:
    assert read_journal_or_none(tmp_path) is None
    assert ended_order(None) == {}
    assert ended_order(journal(tmp_path, 3))["t2"] == 2
    (tmp_path / "study.log").write_text("{}\n{]\n")
    assert read_journal_or_none(tmp_path) is None
