"""`budget.patience`: a search ends where nothing improves, at the same trial however it was run."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import pytest
from pydantic import ValidationError

from faar_ray.objectives.constraint import Constraint
from faar_ray.objectives.metrics import Objective
from faar_ray.records import State, TrialResult
from faar_ray.report.source import limit_of, read_journal_or_none
from faar_ray.tune.propose.journal import keep_limit
from faar_ray.tune.propose.patience import most_in_vain
from faar_ray.tune.run.jobs import Job
from faar_ray.tune.show.dry_run import bound
from faar_ray.tune.space.space import SearchSpace

Space = Callable[..., SearchSpace]
Drive = Callable[..., Any]
QUALITY = Objective(name="delta_m", goal="maximize")
SIZE = Objective(name="trainable_params", goal="minimize")
LIMIT = Constraint(metric="trainable_params", sign="<=", limit=10)


def ended(quality: float, size: float = 1.0, state: State = "COMPLETE") -> TrialResult:
    return TrialResult("t", "c", 0, "trial", state, {}, {"delta_m": quality, "trainable_params": size}, 1.0, 1)


@pytest.mark.parametrize(
    ("results", "objectives", "expected"),
    [
        ([ended(1), ended(2), ended(3)], [QUALITY], 0),
        ([ended(2), ended(1), ended(2), ended(3), ended(3)], [QUALITY], 2),  # an equal value is no improvement
        ([ended(2), ended(1, state="PRUNED"), ended(0, state="FAIL"), ended(1)], [QUALITY], 2),
        ([ended(5, 99), ended(1), ended(4, 99), ended(0)], [QUALITY], 2),  # 99 is infeasible, and begins nothing
        ([ended(1, 5), ended(2, 6), ended(0, 4)], [QUALITY, SIZE], 0),  # each widens the front
        ([ended(1, 5), ended(1, 6), ended(0, 5), ended(1, 4)], [QUALITY, SIZE], 2),
        ([ended(1), ended(float("nan"))], [QUALITY], 1),
        ([], [QUALITY], 0),
    ],
)
def test_trials_in_vain_are_counted(
    results: Sequence[TrialResult], objectives: Sequence[Objective], expected: int
) -> None:
    assert most_in_vain(results, objectives, [LIMIT]) == expected


def patient(space: Space, patience: int | None = 3, **over: Any) -> SearchSpace:
    raw = space().model_dump(mode="json", exclude_unset=True)
    parts = {
        "objectives": [{"name": "delta_m", "goal": "maximize"}],
        "search": {"sampler": "tpe", "startup_trials": 2, "share_prefixes": False},
        "scheduler": {"type": "none"},
        "budget": {"trials": 20, "patience": patience},
    }
    return SearchSpace.model_validate({**raw, **parts, **over})


def flat_from_the_fifth_on(job: Job, epoch: int) -> dict[str, float]:
    return {"delta_m": float(min(job.number or 0, 4))}


def test_the_search_ends_after_so_many_trials_without_improvement_and_says_so(space: Space, driver: Drive) -> None:
    drive = driver(patient(space), train=flat_from_the_fifth_on).run()
    assert len(drive.proposer.results()) == 5 + 3
    assert drive.proposer.ended_early() == (
        "budget.patience 3 was reached: so many trials in a row did not improve delta_m"
    )


def test_without_patience_all_trials_run(space: Space, driver: Drive) -> None:
    drive = driver(patient(space, None), train=flat_from_the_fifth_on).run()
    assert len(drive.proposer.results()) == 20
    assert drive.proposer.ended_early() == ""


@pytest.mark.parametrize("concurrent", [1, 2, 5])
def test_with_a_lag_it_ends_at_the_same_trial_however_many_run_at_once(
    space: Space, driver: Drive, concurrent: int
) -> None:
    lagged = patient(space, search={"sampler": "random", "lag": 3})
    drive = driver(lagged, train=flat_from_the_fifth_on, concurrent=concurrent).run()
    assert len(drive.proposer.results()) == 5 + 3 + 2  # the last two were proposed before the third result was used


def test_a_resumed_search_ends_at_the_same_trial_and_more_patience_goes_on(
    space: Space, driver: Drive, tmp_path: Path
) -> None:
    journal = tmp_path / "parts.log"
    for _ in range(40):
        drive = driver(patient(space), journal, train=flat_from_the_fifth_on)
        drive.take()
        for name in list(drive.open):
            for _epoch in range(3):
                drive.step(name)
    assert drive.search_state.finished()
    assert len(drive.proposer.results()) == 5 + 3

    more = driver(patient(space, 6), journal, train=flat_from_the_fifth_on).run()
    assert len(more.proposer.results()) == 5 + 6


def test_replicates_and_controls_follow(space: Space, driver: Drive) -> None:
    replicates = {"sampler": "random", "replicates": {"top": 2, "seeds": 2}}
    searched = patient(space, search=replicates, controls=[{"method": "dora"}])
    results = driver(searched, train=flat_from_the_fifth_on).run().proposer.results()
    assert [r.role for r in results].count("control") == 1
    assert [r.seed for r in results if r.role == "trial"].count(1) == 2
    assert len(results) == 1 + 5 + 3 + 2


@pytest.mark.parametrize(
    ("over", "words"),
    [
        ({"search": {"sampler": "points"}, "warm_start": {"points": [{"pdrs.rho_shared": 0.8}]}}, "a list is never"),
        (
            {"search": {"sampler": "random"}, "scheduler": {"type": "pbt", "population": 4, "min_epochs": 1}},
            "all of a population end together",
        ),
    ],
)
def test_patience_is_refused_where_it_means_nothing(space: Space, over: dict[str, Any], words: str) -> None:
    with pytest.raises(ValidationError, match=words):
        patient(space, **over)


def test_a_dry_run_names_it_and_a_report_reads_what_ended_the_search(
    space: Space, driver: Drive, tmp_path: Path
) -> None:
    assert "no new configuration after 3 trials in a row that improve nothing" in bound(patient(space))

    drive = driver(patient(space), tmp_path / "study.log", train=flat_from_the_fifth_on).run()
    keep_limit(drive.study, drive.proposer.ended_early())
    assert limit_of(read_journal_or_none(tmp_path)).startswith("budget.patience 3 was reached")
