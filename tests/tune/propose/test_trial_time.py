"""The time limit of one trial: what its clock counts, and how a trial ends that has used it up."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import optuna
import pytest
from pydantic import ValidationError

from faar_ray.cluster.capacity import Capacity
from faar_ray.tune.run.jobs import Job
from faar_ray.tune.show.dry_run import bound
from faar_ray.tune.space.space import SearchSpace

Space = Callable[..., SearchSpace]
Drive = Callable[..., Any]
REASON = "budget.trial_time 10m was reached after 12:00 of training"


def six_minutes(job: Job, epoch: int) -> dict[str, float]:
    """Every second configuration trains fast."""
    slow = job.number is None or job.number % 2 == 0
    values = {"delta_m": float(epoch), "trainable_params": 1e5, "time/epoch_s": 360.0 if slow else 60.0}
    task = job.config.data.tasks[0]
    metric = {"semseg": "miou", "normals": "mean_angle"}[task]
    return values | {f"{split}/{task}/{metric}": 10.0 for split in ("val", "test")}


def limited(space: Space, **over: Any) -> SearchSpace:
    budget = {"trials": 3, "trial_time": "10m"}
    return space(**{"scheduler": {"type": "none"}, "budget": budget} | over)


def test_a_trial_ends_after_the_epoch_in_which_its_time_is_up_as_stopped_and_no_other_does(
    space: Space, driver: Drive
) -> None:
    drive = driver(limited(space), train=six_minutes, concurrent=2).run()
    found = [(r.trial_id, r.state, r.epochs, r.reason) for r in drive.proposer.results()]
    assert found == [
        ("t000-s0", "PRUNED", 2, REASON),
        ("t001-s0", "COMPLETE", 3, ""),
        ("t002-s0", "PRUNED", 2, REASON),
    ]
    assert drive.proposer.results()[0].metrics["delta_m"] == 1.0
    assert drive.proposer.counts() == {"complete": 1, "pruned": 2, "failed": 0}
    assert (drive.search_state.limit, drive.search_state.failures) == ("", 0)


def test_optuna_keeps_the_values_of_a_trial_that_ran_out_of_time(space: Space, driver: Drive) -> None:
    one = [{"name": "delta_m", "goal": "maximize"}]
    first = driver(limited(space, objectives=one), train=six_minutes).run().study.get_trials()[0]
    assert first.state == optuna.trial.TrialState.PRUNED
    assert first.intermediate_values == {0: 0.0, 1: 1.0}


def test_the_clock_goes_on_where_a_driver_was_killed_and_counts_no_replay_twice(space: Space, driver: Drive) -> None:
    first = driver(limited(space), train=six_minutes)
    first.take()
    first.step("t000-s0")
    again = driver(limited(space), train=six_minutes).run()  # epoch 0 is replayed
    result = again.proposer.results()[0]
    assert (result.epochs, result.reason) == (2, REASON)


def test_the_clock_counts_no_epoch_twice_that_a_retry_replays(space: Space, driver: Drive) -> None:
    state = driver(limited(space, budget={"trials": 1, "trial_time": "15m"})).search_state
    name = state.next_job().trial_id
    metrics = {"delta_m": 0.0, "trainable_params": 1.0, "time/epoch_s": 400.0}
    for epoch in (0, 1, 0, 1):  # its process died after two epochs: 800 s
        assert state.stop_reason(name, epoch, metrics) == ""
        state.epoch(name, epoch, metrics)
    assert state.stop_reason(name, 2, metrics) == "budget.trial_time 15m was reached after 20:00 of training"


def test_a_trial_that_is_over_its_last_epoch_is_complete_whatever_it_took(space: Space, driver: Drive) -> None:
    over = limited(space, budget={"trials": 1, "trial_time": "18m"})
    assert driver(over, train=six_minutes).run().proposer.results()[0].state == "COMPLETE"


def test_references_take_the_time_that_they_need_and_controls_do_not(space: Space, driver: Drive) -> None:
    drive = driver(limited(space, references="auto", controls=[{"method": "dora"}]), train=six_minutes).run()
    by_id = {r.trial_id: (r.state, r.epochs) for r in drive.proposer.results()}
    assert by_id["ref-semseg"] == by_id["ref-normals"] == ("COMPLETE", 3)
    assert by_id["c00-s0"] == ("PRUNED", 2)


def test_a_replicate_ends_at_its_time_too(space: Space, driver: Drive) -> None:
    search = {"replicates": {"top": 1, "seeds": 2}}
    three = limited(space, search=search, budget={"trials": 3, "trial_time": "10m"})
    drive = driver(three, train=six_minutes).run()
    states = {trial.user_attrs["trial_id"]: trial.state.name for trial in drive.study.get_trials()}
    assert states == {"t000-s0": "PRUNED", "t001-s0": "COMPLETE", "t001-s1": "PRUNED"}


def test_a_copy_of_a_population_does_not_pay_for_its_parents_epochs(space: Space, driver: Drive) -> None:
    def train(job: Job, epoch: int) -> dict[str, float]:
        value = float(job.number or 0)
        return {"delta_m": value, "trainable_params": 1.0, "time/epoch_s": 360.0}

    pbt = space(
        base={"optim": {"epochs": 5}},
        search={"sampler": "random"},
        scheduler={"type": "pbt", "min_epochs": 2, "interval": 2, "population": 2, "quantile": 0.5},
        budget={"trials": 3, "trial_time": "20m"},
    )
    found = {r.trial_id: (r.state, r.epochs) for r in driver(pbt, train=train).run().proposer.results()}
    assert found["t000-s0"] == ("PRUNED", 2)  # replaced
    assert found["t001-s0"] == ("PRUNED", 4)
    assert found["t002-s0"] == ("COMPLETE", 5)


def test_a_dry_run_names_the_limit(space: Space) -> None:
    lines = bound(limited(space), Capacity(2, "", 2)).splitlines()
    assert "each trial within 10m of training, then to the end of its epoch" in lines


@pytest.mark.parametrize("time", ["10", "0m", "-1m", "1d", 600])
def test_what_is_no_time_is_refused(space: Space, time: Any) -> None:
    with pytest.raises(ValidationError, match=r"trial_time\n.*(above zero|a time such as)"):
        limited(space, budget={"trial_time": time})


def test_it_may_change_when_a_search_is_resumed(space: Space, driver: Drive, tmp_path: Path) -> None:
    first = driver(limited(space, budget={"trials": 1, "trial_time": None}), train=six_minutes)
    first.take()
    first.step("t000-s0")
    results = driver(limited(space, budget={"trials": 1, "trial_time": "6m"}), train=six_minutes).run()
    assert [(r.state, r.epochs) for r in results.proposer.results()] == [("PRUNED", 2)]
