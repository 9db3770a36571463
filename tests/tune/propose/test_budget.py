"""GPU-hours, USD and wall time: what counts, what ends, and what a resumed driver knows of it."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from faar_ray.cluster.capacity import Capacity
from faar_ray.tune.run.jobs import Job
from faar_ray.tune.show.dry_run import bound
from faar_ray.tune.space.space import SearchSpace

Space = Callable[..., SearchSpace]
Drive = Callable[..., Any]
HALF_AN_HOUR = 1800.0
METRICS = {"delta_m": 1.0, "trainable_params": 1.0}


class Clock:
    """Goes on by half an hour with every epoch that is trained."""

    def __init__(self, seconds: float = 0.0) -> None:
        self.seconds = seconds

    def __call__(self) -> float:
        return self.seconds

    def train(self, job: Job, epoch: int) -> dict[str, float]:
        self.seconds += HALF_AN_HOUR
        task = job.config.data.tasks[0]
        metric = {"semseg": "miou", "normals": "mean_angle"}[task]
        return METRICS | {f"{split}/{task}/{metric}": 10.0 for split in ("val", "test")}


@pytest.fixture
def budgeted(space: Space) -> Space:
    """Spaces of many trials of three epochs, each on half of two GPUs and for 4 USD per hour."""

    def make(**over: Any) -> SearchSpace:
        resources = {"workers": 2, "gpus_per_worker": 0.5, "usd_per_hour": 4.0}
        return space(**{"scheduler": {"type": "none"}, "resources": resources} | over)

    return make


@pytest.mark.parametrize(
    ("budget", "limit"),
    [
        ({"gpu_hours": 2}, "budget.gpu_hours 2 was reached after 2 GPU-hours"),
        ({"gpu_hours": 1.8, "usd": 9}, "budget.gpu_hours 1.8 was reached after 2 GPU-hours"),
        ({"gpu_hours": 9, "usd": 7.5}, "budget.usd 7.5 was reached after 8 USD"),
        ({"usd": 100, "time": "2h"}, "budget.time 2h was reached after 2:00:00"),
    ],
)
def test_a_search_ends_within_an_epoch_of_its_limit_and_says_which(
    budgeted: Space, driver: Drive, budget: dict[str, Any], limit: str
) -> None:
    clock = Clock()
    drive = driver(budgeted(budget={"trials": 50} | budget), train=clock.train, now=clock).run()
    message = [(r.state, r.epochs, r.reason) for r in drive.proposer.results()]
    assert message == [("COMPLETE", 3, ""), ("PRUNED", 1, limit)]
    assert drive.search_state.limit == limit


def test_trials_side_by_side_add_up(budgeted: Space, driver: Drive) -> None:
    clock = Clock()
    drive = driver(budgeted(budget={"trials": 50, "usd": 30}), train=clock.train, now=clock, concurrent=2).run()
    spent = drive.study.user_attrs
    assert spent["gpu_hours"] * 4 == pytest.approx(spent["usd"])
    assert spent["elapsed_s"] / 3600 < spent["gpu_hours"] <= 2 * spent["elapsed_s"] / 3600
    assert 30 <= spent["usd"] <= 30 + 2 * 2 * 4 * HALF_AN_HOUR / 3600  # both end one epoch later at most
    assert {r.reason for r in drive.proposer.results()} == {"", drive.search_state.limit}


def test_references_and_controls_cost_and_end_too(budgeted: Space, driver: Drive) -> None:
    clock = Clock()
    auto = budgeted(references="auto", budget={"trials": 9, "gpu_hours": 2})
    drive = driver(auto, train=clock.train, now=clock).run()
    assert [(r.trial_id, r.state, r.epochs) for r in drive.proposer.results()] == [
        ("ref-normals", "PRUNED", 1),
        ("ref-semseg", "COMPLETE", 3),
    ]
    assert (drive.search_state.fatal, drive.search_state.limit) == (
        None,
        "budget.gpu_hours 2 was reached after 2 GPU-hours",
    )


def test_who_waits_for_a_machine_costs_nothing(budgeted: Space, driver: Drive) -> None:
    clock = Clock()
    search_state = driver(budgeted(budget={"usd": 100}), now=clock).search_state
    name = search_state.next_job().trial_id
    for seconds, happens in (
        (100, search_state.resources_acquired),
        (36, search_state.resources_released),
        (500, search_state.resources_acquired),
        (54, search_state.ended),
    ):
        clock.seconds += seconds
        if happens == search_state.ended:
            search_state.epoch(name, 0, METRICS)
        happens(name)
    assert search_state._budget.amounts() == {"elapsed_s": 690.0, "gpu_hours": 90 / 3600, "usd": 0.1}


def test_of_trials_with_many_workers_those_cost_that_have_their_machines(budgeted: Space, driver: Drive) -> None:
    clock = Clock()
    search_state = driver(budgeted(budget={"usd": 100}), now=clock, concurrent=2).search_state
    for _ in range(2):
        search_state.resources_acquired(search_state.next_job().trial_id)  # the process that leads the workers runs
    for seconds, placed in ((7, 0), (50, 1), (9, 2), (30, 0), (1000, 5), (10, 5)):
        clock.seconds += seconds
        search_state.set_placed(placed)
    assert search_state._budget.amounts()["usd"] == pytest.approx(4 / 3600 * (2 * 7 + 1 * 9 + 2 * 30 + 2 * 10))


def test_downtime_and_replays_are_not_counted_and_nothing_twice(budgeted: Space, driver: Drive) -> None:
    def step(drive: Any, clock: Clock, epoch: int, seconds: float) -> None:
        clock.seconds += seconds
        assert drive.search_state.stop_reason("t000-s0", epoch, METRICS) == ""
        drive.search_state.epoch("t000-s0", epoch, METRICS)

    def begun(clock: Clock, **over: Any) -> Any:
        drive = driver(budgeted(**{"budget": {"gpu_hours": 9, "usd": 90}} | over), now=clock)
        drive.search_state.resources_acquired(drive.search_state.next_job().trial_id)
        return drive

    clock = Clock(50_000)
    step(begun(clock), clock, 0, 3600)
    clock.seconds += 1000  # of an epoch that is never finished: the driver is killed in it
    clock = Clock(7)  # another machine's clock, days later
    second = begun(clock)
    assert second.search_state._budget.amounts() == {"elapsed_s": 3600.0, "gpu_hours": 1.0, "usd": 4.0}
    step(second, clock, 0, 0)  # replayed from the trial's checkpoint
    step(second, clock, 1, 1800)
    assert second.study.user_attrs["gpu_hours"] == 1.5
    clock = Clock(0)
    dearer = {"workers": 4, "gpus_per_worker": 0.5, "usd_per_hour": 10.0}
    third = begun(clock, resources=dearer, budget={"gpu_hours": 1.6, "usd": 90})
    clock.seconds += 360
    assert (
        third.search_state.stop_reason("t000-s0", 2, METRICS) == "budget.gpu_hours 1.6 was reached after 1.7 GPU-hours"
    )
    assert third.search_state._budget.amounts() == {"elapsed_s": 5760.0, "gpu_hours": 1.7, "usd": 7.0}


def test_a_used_up_budget_starts_nothing_on_resume_until_there_is_more(
    budgeted: Space, driver: Drive, tmp_path: Path
) -> None:
    clock = Clock()
    first = driver(budgeted(budget={"trials": 50, "usd": 8}), train=clock.train, now=clock).run()
    done = len(first.proposer.results())
    again = driver(budgeted(budget={"trials": 50, "usd": 8}), train=clock.train, now=clock)
    assert again.search_state.finished()
    assert again.search_state.limit == "budget.usd 8 was reached after 8 USD"
    more = driver(budgeted(budget={"trials": 50, "usd": 20}), train=clock.train, now=clock).run()
    assert more.search_state.limit == "budget.usd 20 was reached after 20 USD"
    assert len(more.proposer.results()) > done


def test_what_is_free_is_not_counted(space: Space, driver: Drive) -> None:
    spent = driver(space(budget={"trials": 1})).run().study.user_attrs
    assert "elapsed_s" in spent
    assert {"gpu_hours", "usd"}.isdisjoint(spent)


def test_a_dry_run_bounds_every_budget(budgeted: Space) -> None:
    whole = budgeted(budget={"trials": 7, "time": "2h", "gpu_hours": 3, "usd": 10}, controls=[{"method": "dora"}])
    assert bound(whole, Capacity(2, "", 2)).splitlines() == [
        "bound: 7 trials x 3 epochs = 21 epochs",
        "in addition: 1 controls and 0 single-task references (none where cached) x 3 epochs",
        "all within 2h of wall time",
        "all within 3 GPU-hours: 3 h of trials on 1 GPUs",
        "all within 10 USD: 2.5 h of trials, 1.25 h with all 2 slots busy",
        "at a limit, running trials, references and controls end after their epoch",
        "price: 4 USD per hour of a trial, 8 with all 2 slots busy",
    ]
