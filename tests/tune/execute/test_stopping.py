"""Every rule of early stopping, through the search state: what it never stops, and that a kill changes no decision."""

from __future__ import annotations

import math
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from faar_ray.tune.run.jobs import Job
from faar_ray.tune.space.space import SearchSpace

Space = Callable[..., SearchSpace]
Drive = Callable[..., Any]
RULES = [
    {"type": "asha"},
    {"type": "hyperband"},
    {"type": "median"},
    {"type": "asha", "metric": "front"},
    {"type": "hyperband", "metric": "front"},
    {"type": "paired", "metric": "delta_m", "margin": 0.5},
    {"type": "paired", "metric": "front", "margin": 0.5},
]
every_rule = pytest.mark.parametrize("rule", RULES, ids=lambda rule: " ".join(map(str, rule.values())))


def uneven(job: Job, epoch: int) -> dict[str, float]:
    """Neither quality nor size follows the order of the trials."""
    rho = job.config.pdrs.rho_shared
    return {"delta_m": math.sin(40 * rho) * 5 + epoch, "trainable_params": 1e5 * (1 + math.cos(60 * rho)) - 100 * epoch}


def five_epochs(space: Space, rule: dict[str, Any], **over: Any) -> SearchSpace:
    return space(base={"optim": {"epochs": 5}}, scheduler=rule | {"min_epochs": 1, "min_trials": 2}, **over)


@every_rule
def test_what_the_search_explores_is_stopped_and_nothing_else(
    space: Space, driver: Drive, rule: dict[str, Any]
) -> None:
    def train(job: Job, epoch: int) -> dict[str, float]:
        bad = job.role != "trial" or job.replicate
        metrics = {"delta_m": -99.0, "trainable_params": 9e9} if bad else uneven(job, epoch)
        task = job.config.data.tasks[0]
        metric = {"semseg": "miou", "normals": "mean_angle"}[task]
        return metrics | ({f"{s}/{task}/{metric}": 10.0 for s in ("val", "test")} if job.role == "reference" else {})

    searched = five_epochs(
        space,
        rule,
        references="auto",
        controls=[{"method": "dora"}],
        budget={"trials": 14},
        search={"sampler": "random", "replicates": {"top": 2, "seeds": 2}},
    )
    results = driver(searched, train=train, concurrent=2).run().proposer.results()
    spared = [r for r in results if r.role != "trial" or r.seed == 1]
    assert [(r.state, r.epochs) for r in spared] == [("COMPLETE", 5)] * 5
    stopped = [r for r in results if r.state == "PRUNED"]
    assert 0 < len(stopped) < 12
    assert all(0 < r.epochs < 5 and "after" in r.reason for r in stopped)


@every_rule
def test_a_driver_killed_after_any_epoch_gives_the_verdicts_of_an_undisturbed_one(
    space: Space, driver: Drive, tmp_path: Path, rule: dict[str, Any]
) -> None:
    searched = five_epochs(space, rule, budget={"trials": 8}, search={"sampler": "random"})

    def rows(path: Path) -> list[tuple[Any, ...]]:
        results = driver(searched, path, train=uneven).run().proposer.results()
        return [(r.trial_id, r.state, r.epochs, r.reason, tuple(r.params.items())) for r in results]

    whole = rows(tmp_path / "whole.log")
    assert {row[1] for row in whole} == {"COMPLETE", "PRUNED"}
    lines = (tmp_path / "whole.log").read_bytes().splitlines(keepends=True)
    for kept in [number for number, line in enumerate(lines, 1) if b'"epoch/' in line][2::4]:
        path = tmp_path / f"{kept}.log"
        path.write_bytes(b"".join(lines[:kept]))
        assert rows(path) == whole, f"killed after line {kept}"


def test_the_last_epoch_of_a_shorter_trial_judges_nobody_before_and_after_a_resume(space: Space, driver: Drive) -> None:
    """Ray asks nothing about a trial's last epoch, so a resumed driver must not know it either."""
    searched = space(
        parameters={"optim.epochs": {"values": [2, 5]}},
        search={"sampler": "points"},
        warm_start={"points": [{"optim.epochs": 2}]},
        scheduler={"type": "none"},
        budget={"trials": 1},
    )
    assert driver(searched).run().proposer.config_of(0).optim.epochs == 2
    assert sorted(driver(searched).search_state._rule._at) == [1]


def test_the_journal_holds_all_objectives_of_an_epoch_where_the_front_decides(space: Space, driver: Drive) -> None:
    drive = driver(space(scheduler={"metric": "front"}, budget={"trials": 1}), train=uneven).run()
    attrs = drive.study.get_trials()[0].user_attrs
    assert attrs["epoch/0001"][1] == attrs["epoch/0000"][1] - 100
    assert drive.proposer.history()[0][0] == attrs["epoch/0000"]
