"""A population through the search_state: waiting, copies, and that neither kills nor timing change what is decided."""

from __future__ import annotations

import contextlib
import os
import random
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from optuna.trial import TrialState

from faar_ray.tune.propose.journal_file import JournalFile
from faar_ray.tune.run.jobs import Job
from faar_ray.tune.show.dry_run import bound
from faar_ray.tune.space.space import SearchSpace

Space = Callable[..., SearchSpace]
Drive = Callable[..., Any]
Metrics = dict[str, float]


class World:
    """What training leaves on disk: of every trial its newest checkpoint, which is the list of its epochs' metrics.

    An epoch's metrics follow from those before and from the trial's own values, so a copy that began with anything
    but its parent's state at the boundary would end elsewhere.
    """

    def __init__(self, broken: str = "") -> None:
        self.disk: dict[str, list[Metrics]] = {}
        self.trained: list[tuple[str, int]] = []
        self.broken = broken

    def __call__(self, job: Job, epoch: int) -> Metrics:
        if job.parent and job.trial_id not in self.disk:
            past = self.disk[job.parent]
            assert len(past) == job.inherited, f"{job.parent} went on before {job.trial_id} had its checkpoint"
            self.disk[job.trial_id] = list(past)
        state = self.disk.setdefault(job.trial_id, [])
        assert epoch <= len(state)
        if epoch == len(state):
            if f"{job.trial_id} {epoch}" == self.broken:
                return {"error": 1.0}
            self.trained.append((job.trial_id, epoch))
            rho, last = job.config.pdrs.rho_shared, state[-1]["delta_m"] if state else 0.0
            state.append({"delta_m": 0.7 * last + 3 - 9 * abs(rho - 0.8), "trainable_params": 1e5 * rho - 10 * epoch})
        return state[epoch]


class Killed(BaseException):
    """The driver died; Ray took everything else with it."""


@pytest.fixture
def pbt(space: Space) -> Space:
    """Four places, six epochs, boundaries after 2, 4 (and every second further on)."""

    def make(**over: Any) -> SearchSpace:
        sections: dict[str, Any] = {
            "base": {"optim": {"epochs": 6}},
            "search": {"sampler": "random"},
            "scheduler": {"type": "pbt", "min_epochs": 2, "interval": 2, "population": 4, "quantile": 0.25},
            "budget": {"trials": 12},
        }
        return space(**{name: sections.get(name, {}) | over.get(name, {}) for name in {*sections, *over}})

    return make


@pytest.fixture(autouse=True)
def _nothing_waits_for_the_disk(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(os, "fsync", lambda file: None)


def rows(drive: Any) -> list[tuple[Any, ...]]:
    result = drive.proposer.results()
    return [(r.trial_id, r.state, r.epochs, r.reason, tuple(r.params.items()), r.metrics["delta_m"]) for r in result]


def test_the_places_of_the_worst_are_taken_by_copies_of_the_best(pbt: Space, driver: Drive) -> None:
    world = World()
    drive = driver(pbt(), train=world, concurrent=2).run()
    results = {r.trial_id: r for r in drive.proposer.results()}
    assert list(results) == [f"t{number:03d}-s0" for number in range(6)]
    assert sorted(r.epochs for r in results.values() if r.state == "PRUNED") == [2, 4]
    assert [r.epochs for r in results.values() if r.state == "COMPLETE"] == [6] * 4
    heirs = [trial for trial in drive.study.get_trials() if "parent" in trial.user_attrs]
    assert [trial.user_attrs["inherited_epochs"] for trial in heirs] == [2, 4]
    at_two = {name: world.disk[name][1]["delta_m"] for name in list(results)[:4]}
    first = results[min(at_two, key=lambda name: at_two[name])]
    parent = max(at_two, key=lambda name: at_two[name])
    value = results["t004-s0"].params["pdrs.rho_shared"]
    assert first.reason == (
        f"delta_m {at_two[first.trial_id]:.4g} after 2 epochs, replaced by t004-s0, "
        f"a copy of {parent} with pdrs.rho_shared {value:.4g}"
    )
    assert heirs[0].user_attrs["parent"] == parent
    assert value != results[parent].params["pdrs.rho_shared"]
    assert world.disk["t004-s0"][:2] == world.disk[parent][:2]


def test_nothing_is_trained_twice_and_no_more_than_the_bound(pbt: Space, driver: Drive) -> None:
    world, space = World(), pbt()
    driver(space, train=world, concurrent=3).run()
    assert len(world.trained) == len(set(world.trained)) == 4 * 6
    assert bound(space).startswith("bound: 4 places x 6 epochs = 24 epochs (4 members and at most 2 copies, ")


def test_each_epoch_is_told_once_and_every_trial_starts_and_ends_once(pbt: Space, driver: Drive) -> None:
    class Log:
        def __init__(self) -> None:
            self.lines: list[tuple[Any, ...]] = []

        def started(self, job: Job) -> None:
            self.lines.append(("started", job.trial_id))

        def epoch(self, job: Job, epoch: int, metrics: Metrics) -> None:
            self.lines.append((epoch, job.trial_id))

        def ended(self, job: Job, result: Any) -> None:
            self.lines.append(("ended", job.trial_id))

    log = Log()
    driver(pbt(), train=World(), concurrent=2, watchers=[log]).run()
    assert len(log.lines) == len(set(log.lines))
    heir = [line[0] for line in log.lines if line[1] == "t004-s0"]
    assert heir == ["started", 0, 1, 2, 3, 4, 5, "ended"] or heir == ["started", 0, 1, 2, 3, "ended"]
    assert {line[1] for line in log.lines if line[0] == "started"} == {
        line[1] for line in log.lines if line[0] == "ended"
    }


@pytest.mark.parametrize("concurrent", [2, 9])
def test_how_many_train_at_once_and_in_which_order_changes_nothing(
    pbt: Space, driver: Drive, tmp_path: Path, concurrent: int
) -> None:
    space = pbt(scheduler={"interval": 1, "quantile": 0.5}, budget={"trials": 9})
    alone = rows(driver(space, tmp_path / "alone.log", train=World()).run())
    assert len(alone) == 9
    for seed in range(2):
        drive, order = (
            driver(space, tmp_path / f"{seed}.log", train=World(), concurrent=concurrent),
            random.Random(seed),
        )
        while not drive.search_state.finished():
            drive.take()
            drive.step(order.choice(sorted(drive.open)))
        assert rows(drive) == alone


def test_who_waits_holds_no_place(pbt: Space, driver: Drive) -> None:
    drive = driver(pbt(), train=World(), concurrent=1)
    for number in range(4):
        job = drive.search_state.next_job()
        assert (job.number, job.pause_after) == (number, 2)
        assert drive.search_state.next_job() is None
        drive.open[job.trial_id] = (job, 0)
        drive.step(job.trial_id)
        drive.step(job.trial_id)
        assert (list(drive.search_state.running), drive.search_state.finished()) == ([], False)
    assert len(drive.search_state.waiting) == 3  # and one has gone
    assert [trial.state for trial in drive.study.get_trials()].count(TrialState.PRUNED) == 1


def test_a_parent_waits_for_its_copies(pbt: Space, driver: Drive) -> None:
    drive = driver(pbt(), train=World(), concurrent=4)
    drive.take()
    for name in list(drive.open) * 2:
        drive.step(name)
    heir = drive.study.get_trials()[4].user_attrs["parent"]
    drive.take()
    assert sorted(drive.open) == sorted({"t004-s0", *drive.order[:4]} - {heir} - pruned(drive))
    drive.step("t004-s0")
    drive.take()
    assert heir in drive.open


def pruned(drive: Any) -> set[str]:
    return {result.trial_id for result in drive.proposer.results() if result.state == "PRUNED"}


SMALLER: dict[str, Any] = {
    "base": {"optim": {"epochs": 4}},
    "budget": {"trials": 7},
    "scheduler": {"min_epochs": 1, "interval": 2, "quantile": 0.5},
}
"""Two copies after the first epoch, and one after the third, for which alone there is room."""


class Dying:
    """Journal writes until the driver is killed; the line that it was writing may be torn."""

    write = JournalFile.write

    def __init__(self, lines: int) -> None:
        self.left = lines

    def __call__(self, journal: JournalFile) -> None:
        lines = journal._unwritten
        journal._unwritten, self.left = lines[: max(0, self.left)], self.left - len(lines)
        Dying.write(journal)
        if self.left < 0:
            if self.left % 2:
                with journal.path.open("ab") as file:
                    file.write(b'{"op_code": 8, "wor')
            raise Killed


def moments(lines: list[bytes]) -> list[int]:
    """After which lines to kill: every one about a decision, and some others."""
    about = (b'"generation/', b'"waits"', b'"parent"', b'"config_number"', b'"result"', b'"inherited_epochs"')
    return [n for n, line in enumerate(lines) if n > 2 and (n % 17 == 0 or any(word in line for word in about))]


@pytest.mark.parametrize(
    "part",
    [
        pytest.param(3, id="some"),
        pytest.param(1, id="all", marks=[pytest.mark.slow, pytest.mark.nightly, pytest.mark.timeout(900)]),
    ],
)
def test_killed_at_any_moment_it_decides_as_an_undisturbed_one(
    pbt: Space, driver: Drive, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, part: int
) -> None:
    """Twice, the second time soon after it was resumed; what was trained stays on disk."""
    space = pbt(**SMALLER)
    whole = rows(driver(space, tmp_path / "whole.log", train=World(), concurrent=2).run())
    assert [row[0] for row in whole] == [f"t{number:03d}-s0" for number in range(7)]
    lines = (tmp_path / "whole.log").read_bytes().splitlines()
    kills = moments(lines)[::part] if part > 1 else range(3, len(lines))
    assert len(kills) > 10
    for kill in kills:
        world, path = World(), tmp_path / f"{kill}.log"
        for left, concurrent in ((kill, 2), (9, 3)):
            dying = Dying(left)
            with monkeypatch.context() as patch, contextlib.suppress(Killed):
                patch.setattr(JournalFile, "write", lambda journal, dying=dying: dying(journal))
                driver(space, path, train=world, concurrent=concurrent).run()
            assert dying.left < 0 or kill + 9 > len(lines) - 30
        assert rows(driver(space, path, train=world, concurrent=2).run()) == whole, f"killed after line {kill}"
        assert len(world.trained) == len(set(world.trained))


def test_who_fails_is_out_and_the_others_go_on(pbt: Space, driver: Drive) -> None:
    drive = driver(pbt(), train=World(broken="t001-s0 1"), concurrent=2).run()
    results = {result.trial_id: result for result in drive.proposer.results()}
    assert (results["t001-s0"].state, results["t001-s0"].epochs) == ("FAIL", 1)
    assert all("of t001-s0" not in result.reason for result in results.values())
    assert [r.state for r in results.values()].count("COMPLETE") == 3
    assert [r.state for r in results.values()].count("PRUNED") == 2


def test_a_copy_that_fails_before_it_has_begun_frees_its_parent(pbt: Space, driver: Drive) -> None:
    class Torn(World):
        def __call__(self, job: Job, epoch: int) -> Metrics:
            return {"error": 1.0} if job.parent else super().__call__(job, epoch)

    drive = driver(pbt(), train=Torn(), concurrent=1).run()
    states = [result.state for result in drive.proposer.results()]
    assert (states.count("FAIL"), states.count("COMPLETE"), states.count("PRUNED")) == (2, 2, 2)


def test_a_population_of_which_one_is_left_goes_to_its_end(pbt: Space, driver: Drive) -> None:
    class Alone(World):
        def __call__(self, job: Job, epoch: int) -> Metrics:
            return {"error": 1.0} if job.number else super().__call__(job, epoch)

    drive = driver(pbt(), train=Alone(), concurrent=2).run()
    assert [(r.state, r.epochs) for r in drive.proposer.results()] == [("COMPLETE", 6)] + [("FAIL", 0)] * 3


def test_nobody_is_replaced_beyond_the_budget(pbt: Space, driver: Drive) -> None:
    drive = driver(pbt(budget={"trials": 5}), train=World(), concurrent=2).run()
    assert drive.proposer.counts() == {"complete": 4, "pruned": 1, "failed": 0}
    assert "t005-s0" not in drive.order
    assert max(drive.order.count(name) for name in drive.order) == 2  # no more waiting after the last copy


def test_at_a_limit_those_that_wait_end_too(pbt: Space, driver: Drive) -> None:
    now, world = [0.0], World()

    def train(job: Job, epoch: int) -> Metrics:
        now[0] += 60
        return world(job, epoch)

    timed = pbt(budget={"trials": 12, "time": "7m"})
    drive = driver(timed, train=train, now=lambda: now[0]).run()
    assert drive.search_state.limit.startswith("budget.time 7m was reached")
    assert [(r.state, r.epochs, r.reason) for r in drive.proposer.results()] == [
        ("PRUNED", epochs, drive.search_state.limit) for epochs in (2, 2, 2, 1)
    ]


def test_the_goal_of_the_metric_decides_who_is_worse(pbt: Space, driver: Drive) -> None:
    drive = driver(pbt(scheduler={"metric": "trainable_params"}), train=World(), concurrent=2).run()
    members = {r.trial_id: r for r in drive.proposer.results()[:4]}
    most = max(members.values(), key=lambda r: float(r.params["pdrs.rho_shared"]))
    assert (most.state, most.epochs) == ("PRUNED", 2)
    assert most.reason.startswith("trainable_params ")


def test_priors_and_points_are_the_first_members(pbt: Space, driver: Drive) -> None:
    warm = pbt(warm_start={"points": [{"pdrs.rho_shared": 0.6}]})
    results = driver(warm, train=World(), concurrent=2).run().proposer.results()
    assert [result.params["pdrs.rho_shared"] for result in results[:2]] == [0.95, 0.6]


def test_copies_of_a_configuration_on_two_seeds_keep_their_parents_seed(pbt: Space, driver: Drive) -> None:
    listed = pbt().model_dump(by_alias=True)
    listed["parameters"] = {"pdrs.rho_shared": {"values": [0.7, 0.8]}}
    results = driver(SearchSpace.model_validate(listed), train=World(), concurrent=2).run().proposer.results()
    seeds = {result.trial_id: result.seed for result in results}
    assert len(seeds) == 6
    assert len({(result.config_id, result.seed) for result in results[:4]}) == 4
    for copied in results[4:]:
        parent = (
            next(r.reason for r in results if f"by {copied.trial_id}," in r.reason).split("a copy of ")[1].split()[0]
        )
        assert seeds[parent] == copied.seed


@pytest.mark.parametrize(
    ("over", "rule"),
    [
        ({"search": {"sampler": "tpe"}}, "cannot be pbt for sampler tpe"),
        ({"search": {"replicates": {"top": 1, "seeds": 2}}}, "cannot be pbt with search.replicates"),
        (
            {"parameters": {"ranks.init_rank": {"values": [4, 8]}}},
            "where ranks.init_rank is searched: only optim.lr, optim.decoder_lr, optim.backbone_lr, pdrs.beta",
        ),
        (
            {"parameters": {"pdrs.beta": {"min": 0.5, "max": 0.9, "when": {"pdrs.scope": "adapter"}}}},
            "where parameters have `when` (pdrs.beta)",
        ),
        ({"scheduler": {"population": 12}}, "must be < budget.trials = 12, which counts copies too"),
        ({"scheduler": {"population": 2}, "warm_start": {"points": [{"pdrs.rho_shared": x} for x in (0.6, 0.7)]}}, "3"),
        ({"scheduler": {"min_epochs": 6}}, "must be < optim.epochs = 6 for pbt"),
        ({"scheduler": {"metric": "front"}}, "it ranks trials by one metric, got 'front'"),
        ({"scheduler": {"quantile": 0.6}}, "satisfy 0 < quantile <= 0.5"),
        ({"scheduler": {"population": 1}}, "greater than or equal to 2"),
    ],
)
def test_what_cannot_be_a_population_is_refused(pbt: Space, over: dict[str, Any], rule: str) -> None:
    with pytest.raises(ValueError, match=r".") as message:
        pbt(**over)
    assert rule in str(message.value)


def test_more_trials_on_resume_go_to_boundaries_that_nobody_has_passed(
    pbt: Space, driver: Drive, tmp_path: Path
) -> None:
    """Without room nobody waits; who has gone past a boundary is not compared there any more."""
    world, path = World(), tmp_path / "study.log"
    first = driver(pbt(budget={"trials": 5}), path, train=world, concurrent=4)
    while max(len(state) for state in world.disk.values() or [()]) < 5:
        first.take()
        for name in list(first.open):
            first.step(name)
    results = driver(pbt(budget={"trials": 9}), path, train=world, concurrent=4).run().proposer.results()
    assert [result.state for result in results].count("COMPLETE") == 4
    assert len(results) == 5
    assert len(world.trained) == len(set(world.trained))
