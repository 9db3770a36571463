"""Points of trunks: when they are handed out, what is written down, and the one value that the sampler is told."""

from __future__ import annotations

import dataclasses
import itertools
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import optuna
import pytest
from optuna.trial import TrialState

from faar_ray.config.trial import merge_sections
from faar_ray.records import TrialResult
from faar_ray.report.progress import open_trials
from faar_ray.storage.run_location import TrialPaths
from faar_ray.tracking.files.trial_files import write_config
from faar_ray.tune.propose.journal import open_journal
from faar_ray.tune.propose.proposer import Proposer
from faar_ray.tune.run.jobs import Job, config_of
from faar_ray.tune.space.space import SearchSpace
from tests.tune.conftest import TINY, Driver

FULL = 1000.0
GOALS = [{"name": "delta_m", "goal": "maximize"}, {"name": "params/adapters", "goal": "minimize"}]
FRONT = {"sizes": [150, 270, 500], "reference": {"delta_m": -20.0, "params/adapters": 1200.0}}


def front_space(**over: Any) -> SearchSpace:
    raw = merge_sections(TINY, {"base": {"ranks": {"kind": "fixed"}, "optim": {"epochs": 6}}, "budget": {"trials": 2}})
    raw |= {"parameters": {"optim.lr": {"min": 1e-4, "max": 1e-2, "log": True, "prior": 1e-3}}, "objectives": GOALS}
    return SearchSpace.model_validate(raw | {"front": FRONT, "scheduler": {"type": "none"}} | over)


def cut(job: Job, epoch: int) -> dict[str, float]:
    """A trunk has its full size; a point is smaller from its cut on, and worse; a pure function, as training is."""
    budget, after = job.config.ranks.budget, job.config.spectral.cut_epoch
    size = FULL if budget is None or epoch < (after or 0) else float(budget)
    quality = -1e3 * abs(job.config.optim.lr - 2e-3) - 5 * (1 - size / FULL) - 0.1 * job.config.seed + epoch
    return {"delta_m": quality, "params/adapters": size, "trainable_params": size + 10}


def values(study: optuna.Study) -> list[float]:
    return [trial.value for trial in study.trials if trial.value is not None]


def rows(driver: Driver) -> list[TrialResult]:
    """The rows of the table, without what depends on the clock."""
    results = sorted(driver.proposer.results(), key=lambda result: result.trial_id)
    return [dataclasses.replace(result, seconds=0.0) for result in results]


def area(points: list[tuple[float, float]], reference: tuple[float, float]) -> float:
    """Hypervolume of (quality, size) points, larger and smaller are better, by its definition on a grid of cells."""
    inside = [point for point in points if point[0] > reference[0] and point[1] < reference[1]]
    xs = sorted({reference[0], *(x for x, _ in inside)})
    ys = sorted({reference[1], *(y for _, y in inside)})
    cells = itertools.product(itertools.pairwise(xs), itertools.pairwise(ys))
    return sum(
        (right - left) * (top - bottom)
        for (left, right), (bottom, top) in cells
        if any(x >= right and y <= bottom for x, y in inside)
    )


def test_every_trunk_has_a_row_and_each_of_its_sizes_one_with_the_epochs_that_it_trained_itself(driver: Any) -> None:
    found = rows(driver(front_space(), train=cut).run())
    assert [result.trial_id for result in found if result.role == "trial"] == ["t000-s0", "t001-s0"]
    points = {result.trial_id: result for result in found if result.role == "point" and result.parent == "t000-s0"}
    assert {name: (r.epochs, r.inherited, r.metrics["params/adapters"]) for name, r in points.items()} == {
        "t000-s0-150": (2, 4, 150.0),
        "t000-s0-270": (1, 5, 270.0),
        "t000-s0-500": (0, 6, 500.0),
    }
    assert {result.state for result in found} == {"COMPLETE"}
    assert sum(result.epochs for result in found) == 2 * (6 + 2 + 1)
    assert points["t000-s0-150"].params == {
        "optim.lr": pytest.approx(1e-3),
        "ranks.budget": 150,
        "spectral.cut_epoch": 3,
    }
    assert len({result.config_id for result in found}) == 8


def test_the_config_of_a_point_is_that_of_an_ordinary_trial(driver: Any) -> None:
    space = front_space()
    point = next(r for r in rows(driver(space, train=cut).run()) if r.trial_id == "t000-s0-150")
    config = config_of(space, point)
    assert (config.ranks.kind, config.ranks.budget, config.spectral.cut_epoch) == ("spectral", 150, 3)
    assert config.optim.lr == point.params["optim.lr"]


def test_one_slot_trains_all_points_of_a_trunk_before_the_next_trunk(driver: Any) -> None:
    order = driver(front_space(), train=cut).run().order
    assert order[:5] == ["t000-s0", "t000-s0-150", "t000-s0-270", "t000-s0-500", "t001-s0"]


def test_a_free_slot_takes_a_fork_while_its_trunk_trains_on(driver: Any) -> None:
    made = driver(front_space(budget={"trials": 1}), train=cut, concurrent=2)
    made.take()
    for _ in range(4):
        made.step("t000-s0")
    made.take()
    assert made.order == ["t000-s0", "t000-s0-150"]


def test_the_sampler_is_told_the_hypervolume_of_all_points_of_a_trial(driver: Any) -> None:
    made = driver(front_space(), train=cut).run()
    expected = []
    for trunk in ("t000-s0", "t001-s0"):
        own = [r.metrics for r in rows(made) if trunk in (r.trial_id, r.parent)]
        expected.append(area([(m["delta_m"], m["params/adapters"]) for m in own], (-20.0, 1200.0)))
    assert values(made.study) == pytest.approx(expected)
    assert [r.metrics["front/hypervolume"] for r in rows(made) if r.role == "trial"] == pytest.approx(expected)


def test_infeasible_points_are_no_part_of_the_hypervolume(driver: Any) -> None:
    made = driver(front_space(constraints=["params/adapters <= 300"]), train=cut).run()
    own = [r.metrics for r in rows(made) if r.parent == "t000-s0" and r.metrics["params/adapters"] <= 300]
    expected = area([(m["delta_m"], m["params/adapters"]) for m in own], (-20.0, 1200.0))
    assert values(made.study)[0] == pytest.approx(expected)


def test_with_one_objective_the_sampler_is_told_the_best_feasible_point(driver: Any) -> None:
    over = {"objectives": GOALS[:1], "front": {"sizes": [150, 270]}, "constraints": ["params/adapters <= 300"]}
    made = driver(front_space(**over), train=cut).run()
    best = next(r.metrics["delta_m"] for r in rows(made) if r.trial_id == "t000-s0-270")
    assert values(made.study)[0] == best
    assert all(excess <= 0 for excess in made.study.trials[0].constraints.values())


def test_where_no_point_is_feasible_the_sampler_learns_by_how_much(driver: Any) -> None:
    over = {"objectives": GOALS[:1], "front": {"sizes": [150, 270]}, "constraints": ["params/adapters <= 100"]}
    made = driver(front_space(**over), train=cut).run()
    assert set(made.study.trials[0].constraints.values()) == {50.0}
    assert "front/delta_m" not in next(r.metrics for r in rows(made) if r.trial_id == "t000-s0")


def steps(made: Driver) -> Iterator[None]:
    """Single events of a search: a job is taken, or does one epoch."""
    while not made.search_state.finished():
        before = len(made.order)
        made.take()
        if len(made.order) > before:
            yield
        for name in list(made.open):
            made.step(name)
            yield


@pytest.mark.parametrize("concurrent", [1, 2])
def test_a_search_that_is_killed_between_any_two_events_ends_as_an_undisturbed_one(
    driver: Any, tmp_path: Path, concurrent: int
) -> None:
    space = front_space(search={"startup_trials": 1, "lag": 2}, front={"sizes": [150, 500]})
    whole = driver(space, tmp_path / "whole.log", train=cut, concurrent=concurrent)
    events = sum(1 for _ in steps(whole))
    assert events > 20
    for kill in range(3, events, 4):
        journal = tmp_path / f"{kill}.log"
        first = driver(space, journal, train=cut, concurrent=concurrent)
        for _ in itertools.islice(steps(first), kill):
            pass
        again = driver(space, journal, train=cut, concurrent=concurrent).run()
        assert rows(again) == rows(whole), kill
        assert values(again.study) == values(whole.study), kill
        done = {r.trial_id for r in first.proposer.results()}
        assert not done & set(again.order), "trained twice"


def test_the_reference_point_is_that_of_the_first_trial_whichever_ends_first(driver: Any, tmp_path: Path) -> None:
    def ended(late: str, name: str) -> Driver:
        made: Driver = driver(front_space(front={"sizes": [150, 270]}), tmp_path / name, train=cut, concurrent=2)
        while not made.search_state.finished():
            made.take()
            for job in [job for job in made.open if not job.startswith(late)] or list(made.open):
                made.step(job)
        return made

    one, other = ended("t001", "one.log"), ended("t000", "other.log")
    assert one.study.user_attrs["front/reference"] == other.study.user_attrs["front/reference"]
    assert values(one.study) == values(other.study)
    first = [r.metrics["delta_m"] for r in rows(one) if "t000-s0" in (r.trial_id, r.parent)]
    worst, best = min(first), max(first)
    assert one.study.user_attrs["front/reference"]["delta_m"] == pytest.approx(worst - 0.5 * (best - worst))


def test_a_trunk_is_trimmed_after_its_last_point_and_by_the_next_driver_where_a_kill_came_between(
    driver: Any, tmp_path: Path
) -> None:
    trimmed: list[tuple[str, int]] = []

    def trim(name: str) -> None:
        trimmed.append((name, len(made.order)))

    made = driver(front_space(), tmp_path / "log", train=cut, trim_trunk=trim)
    made.run()
    assert trimmed == [("t000-s0", 4), ("t001-s0", 8)]
    trimmed.clear()
    driver(front_space(), tmp_path / "log", train=cut, trim_trunk=trim)
    assert [name for name, _ in trimmed] == ["t000-s0", "t001-s0"]


def test_a_point_that_fails_leaves_its_trunk_and_the_other_points(driver: Any) -> None:
    def breaking(job: Job, epoch: int) -> dict[str, float]:
        broken = job.trial_id == "t000-s0-150" and epoch == 4
        return {"error": 1.0} if broken else cut(job, epoch)

    made = driver(front_space(), train=breaking).run()
    states = {result.trial_id: result.state for result in rows(made)}
    assert states["t000-s0-150"] == "FAIL" and made.search_state.failures == 1
    assert [state for name, state in states.items() if name != "t000-s0-150"] == ["COMPLETE"] * 7
    assert [trial.state for trial in made.study.trials] == [TrialState.COMPLETE] * 2
    assert made.proposer.counts() == {"complete": 2, "pruned": 0, "failed": 0}


def test_a_trunk_that_is_stopped_begins_no_further_point_and_those_that_forked_end(driver: Any) -> None:
    over = {"scheduler": {"type": "asha", "min_epochs": 5, "reduction": 2}, "budget": {"trials": 2}}

    def worse(job: Job, epoch: int) -> dict[str, float]:
        return cut(job, epoch) | ({"delta_m": -90.0} if job.trial_id == "t001-s0" else {})

    made = driver(front_space(**over), train=worse, concurrent=5)
    made.take()
    while "t000-s0" in made.open:  # the other one is behind
        made.step("t000-s0")
    for _ in range(4):
        made.step("t001-s0")
    made.take()
    assert "t001-s0-150" in made.order
    made.step("t001-s0")
    made.run()

    found = {result.trial_id: result for result in rows(made)}
    assert found["t001-s0"].state == "PRUNED" and made.study.trials[1].state == TrialState.PRUNED
    assert [name for name in found if name.startswith("t001-s0-")] == ["t001-s0-150"]
    assert found["t001-s0-150"].state == "COMPLETE"


def test_a_trunk_that_fails_at_once_has_no_points_and_the_search_goes_on(driver: Any) -> None:
    def breaking(job: Job, epoch: int) -> dict[str, float]:
        return {"error": 1.0} if job.trial_id == "t000-s0" else cut(job, epoch)

    made = driver(front_space(front={"sizes": [150]}), train=breaking).run()
    assert [(r.trial_id, r.state) for r in rows(made)] == [
        ("t000-s0", "FAIL"), ("t001-s0", "COMPLETE"), ("t001-s0-150", "COMPLETE"),
    ]  # fmt: skip
    assert len(values(made.study)) == 1


def test_replicates_run_a_leading_trial_with_its_points_on_another_seed(driver: Any) -> None:
    over = {"search": {"replicates": {"top": 1, "seeds": 2}}, "budget": {"trials": 3}}
    found = rows(driver(front_space(**over), train=cut).run())
    again = [result for result in found if result.seed == 1]
    trunk = next(result for result in again if result.role == "trial")
    assert [r.parent for r in again if r.role == "point"] == [trunk.trial_id] * 3
    first = {r.config_id for r in found if r.seed == 0}
    assert {r.config_id for r in again} <= first, "the points of two seeds are one configuration each"


def test_patience_looks_at_the_one_value(driver: Any) -> None:
    def worse(job: Job, epoch: int) -> dict[str, float]:
        return cut(job, epoch) | {"delta_m": cut(job, epoch)["delta_m"] - 3 * int(job.trial_id[1:4])}

    made = driver(front_space(budget={"trials": 9, "patience": 2}), train=worse).run()
    assert made.proposer.counts()["complete"] == 3
    assert "front/hypervolume" in made.proposer.ended_early()


def test_points_that_a_limit_left_out_run_after_a_resume(driver: Any, tmp_path: Path) -> None:
    clock = [0.0]

    def slow(job: Job, epoch: int) -> dict[str, float]:
        clock[0] += 1.0
        return cut(job, epoch)

    journal = tmp_path / "study.log"
    short = front_space(budget={"trials": 1, "time": "6s"})
    first = driver(short, journal, train=slow, now=lambda: clock[0]).run()
    assert [(r.trial_id, r.state) for r in rows(first)] == [("t000-s0", "COMPLETE")]
    assert first.proposer.counts()["complete"] == 1
    again = driver(front_space(budget={"trials": 1}), journal, train=cut).run()
    assert again.order == ["t000-s0-150", "t000-s0-270", "t000-s0-500"]
    assert len(values(again.study)) == 1


def test_a_journal_holds_all_that_the_report_needs(driver: Any, tmp_path: Path) -> None:
    space = front_space()
    made = driver(space, tmp_path / "study.log", train=cut).run()
    study = open_journal(tmp_path / "study.log", space.name, space.study_objectives)
    assert [r.trial_id for r in Proposer(space, study).results()] == [r.trial_id for r in rows(made)]


def test_a_report_of_an_unfinished_search_knows_a_point_that_trains(driver: Any, tmp_path: Path) -> None:
    made = driver(front_space(budget={"trials": 1}), tmp_path / "study.log", train=cut, concurrent=2)
    made.take()
    for _ in range(4):
        made.step("t000-s0")
    made.take()
    for name, (job, _) in made.open.items():
        write_config(TrialPaths(tmp_path, name), job.config)
    unended = {r.trial_id: r for r in open_trials(tmp_path, made.study, made.proposer.results())}
    assert {name: (r.role, r.state) for name, r in unended.items()} == {
        "t000-s0": ("trial", "RUNNING"),
        "t000-s0-150": ("point", "RUNNING"),
    }
    assert unended["t000-s0-150"].params == {"optim.lr": pytest.approx(1e-3), "ranks.budget": 150}
    assert unended["t000-s0-150"].parent == "t000-s0"
