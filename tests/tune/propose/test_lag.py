"""`search.lag`: the same trials and numbers, whichever trial finishes first and however many run at once."""

from __future__ import annotations

import random
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from faar_ray.tune.propose.samplers import SAMPLERS
from faar_ray.tune.space.space import SearchSpace

Space = Callable[..., SearchSpace]
Drive = Callable[..., Any]

RANGES: dict[str, Any] = {
    "pdrs.rho_shared": {"min": 0.5, "max": 0.99, "scale": "log1m", "prior": 0.95},
    "optim.lr": {"min": 1e-4, "max": 1e-2, "log": True},
}
ONE = [{"name": "delta_m", "goal": "maximize"}]
TWO = [*ONE, {"name": "trainable_params", "goal": "minimize"}]
MACHINES = [(1, 0), (2, 1), (2, 2), (4, 3), (8, 4)]
"""(trials at once, seed of the order in which their epochs end)."""


def searched(space: Space, sampler: str, lag: int | None = 2, **over: Any) -> SearchSpace:
    """A search whose later proposals depend on results, with reruns of its leaders as rho.yaml has them."""
    generations = {"population": 4} if SAMPLERS[sampler].generations else {}
    search = {"sampler": sampler, "startup_trials": 4, "lag": lag, "replicates": {"top": 3, "seeds": 2}, **generations}
    parts = {
        "parameters": RANGES,
        "objectives": TWO if SAMPLERS[sampler].many_objectives else ONE,
        "controls": [{"method": "dora"}],
        "search": search,
        "scheduler": {"type": "none"},
        "budget": {"trials": 17},
        "warm_start": {"points": [{"pdrs.rho_shared": 0.8}]},
    }
    raw = space().model_dump(mode="json", exclude_unset=True)
    return SearchSpace.model_validate({**raw, **parts, **over})


def train(job: Any, epoch: int) -> dict[str, float]:
    """Metrics from the trial's values alone, as training gives them."""
    rho, lr = job.config.pdrs.rho_shared, job.config.optim.lr
    quality = 10 * rho - abs(lr - 3e-3) * 1e3 - 0.3 * job.config.seed + epoch
    return {"delta_m": quality, "trainable_params": 1e5 * (1 + rho) - 100 * epoch}


def played(driver: Any, seed: int) -> list[tuple[Any, ...]]:
    """The rows of a search whose open trials finish epochs in an order drawn from the seed."""
    order = random.Random(seed)
    while not driver.search_state.finished():
        driver.take()
        if driver.open:
            driver.step(order.choice(list(driver.open)))
    return [
        (r.trial_id, r.config_id, r.seed, r.state, r.params, r.metrics, r.epochs) for r in driver.proposer.results()
    ]


@pytest.mark.parametrize("sampler", ["tpe", "nsga2", "cmaes", "random", pytest.param("gp", marks=pytest.mark.slow)])
def test_the_answer_does_not_depend_on_which_trial_finishes_first(
    space: Space, driver: Drive, tmp_path: Path, sampler: str
) -> None:
    small = searched(space, sampler)
    first, *others = (
        played(driver(small, tmp_path / f"{concurrent}-{seed}.log", train=train, concurrent=concurrent), seed)
        for concurrent, seed in MACHINES
    )
    assert len(first) >= 17  # the control, 14 explored, and reruns of 3 leaders unless one was drawn twice
    for rows in others:
        assert rows == first


def test_without_lag_the_proposals_of_tpe_depend_on_timing(space: Space, driver: Drive, tmp_path: Path) -> None:
    small = searched(space, "tpe", lag=None)
    answers = [
        played(driver(small, tmp_path / f"{concurrent}-{seed}.log", train=train, concurrent=concurrent), seed)
        for concurrent, seed in MACHINES
    ]
    assert any(rows != answers[0] for rows in answers)


def test_a_search_resumed_after_a_kill_proposes_the_same(space: Space, driver: Drive, tmp_path: Path) -> None:
    small = searched(space, "tpe")
    whole = played(driver(small, tmp_path / "whole.log", train=train, concurrent=3), 0)
    for steps in (13, 22, 31):
        path, order = tmp_path / f"{steps}.log", random.Random(steps)
        killed = driver(small, path, train=train, concurrent=3)
        for _ in range(steps):
            killed.take()
            killed.step(order.choice(list(killed.open)))
        assert played(driver(small, path, train=train, concurrent=2), steps) == whole


def test_a_proposal_waits_for_the_results_that_it_uses_and_for_no_others(space: Space, driver: Drive) -> None:
    played = driver(searched(space, "tpe", lag=3, controls=[]), train=train, concurrent=8)

    def finish(*numbers: int) -> list[str]:
        for number in numbers:
            while f"t{number:03d}-s0" in played.open:
                played.step(f"t{number:03d}-s0")
        before = list(played.order)
        played.take()
        return list(played.order[len(before) :])

    played.take()
    assert played.order == ["t000-s0", "t001-s0", "t002-s0", "t003-s0"]  # priors, points and random ones wait for none
    assert finish(3, 2) == []
    assert finish(0) == []
    assert finish(1) == ["t004-s0", "t005-s0", "t006-s0"]  # trial k uses the results up to k - 3
    assert finish(5) == []
    assert finish(4) == ["t007-s0", "t008-s0"]
