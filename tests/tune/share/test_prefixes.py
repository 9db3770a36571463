"""Searches that share prefixes, played: who waits, what is counted and removed, what a resumed search knows."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from faar_ray.records import TrialResult
from faar_ray.report.progress import PREFIX, open_trials
from faar_ray.report.words.shared_words import shared_sentences
from faar_ray.tune.run.jobs import Job
from faar_ray.tune.space.space import SearchSpace

LATE: dict[str, Any] = {"base": {"pdrs": {"start_epoch": 1}}, "scheduler": {"type": "none"}}
SHARE: dict[str, Any] = {"search": {"share_prefixes": True, "lag": 1}}
REPLICATED: dict[str, Any] = {"search": {"share_prefixes": True, "lag": 1, "replicates": {"top": 2, "seeds": 2}}}
Spaces = Callable[..., SearchSpace]
Drivers = Callable[..., Any]


class Watched:
    """Notes what the watchers of a search are told."""

    def __init__(self) -> None:
        self.jobs: dict[str, Job] = {}
        self.results: dict[str, TrialResult] = {}

    def started(self, job: Job) -> None:
        self.jobs[job.trial_id] = job

    def epoch(self, job: Job, epoch: int, metrics: Any) -> None:
        """Nothing."""

    def ended(self, job: Job, result: TrialResult) -> None:
        self.results[job.trial_id] = result


def rows(results: list[TrialResult]) -> list[tuple[Any, ...]]:
    return [(r.trial_id, r.config_id, r.state, r.params, r.metrics) for r in results]


@pytest.mark.parametrize("over", [SHARE, REPLICATED], ids=["seed", "replicates"])
@pytest.mark.parametrize("concurrent", [1, 3])
def test_a_search_that_shares_finds_what_one_finds_that_does_not(
    over: dict[str, Any], concurrent: int, space: Spaces, driver: Drivers, tmp_path: Path
) -> None:
    alone = {"search": {**over["search"], "share_prefixes": False}}
    found = [
        driver(space(**LATE, **chosen), tmp_path / name, concurrent=concurrent).run().proposer.results()
        for name, chosen in (("shared", over), ("alone", alone))
    ]
    assert rows(found[0]) == rows(found[1])


def test_trials_wait_for_their_prefix_and_fork_where_they_part(space: Spaces, driver: Drivers) -> None:
    watched = Watched()
    removed: list[str] = []
    played = driver(space(**LATE, **SHARE), watchers=[watched], remove_prefix=removed.append).run()
    assert played.order[:2] == ["p000-s0", "t000-s0"]
    prefix = watched.jobs["p000-s0"]
    assert (prefix.stop_after, prefix.leave_end, prefix.config.seed) == (2, True, 0)
    assert watched.results["p000-s0"].state == "COMPLETE"
    trials = [watched.jobs[name] for name in played.order[1:]]
    assert {(job.parent, job.inherited, job.redo, job.shared) for job in trials} == {("p000-s0", 2, True, True)}
    assert [job.paid for job in trials] == [2, 0, 0, 0, 0, 0]
    assert removed == ["p000-s0"]
    assert {result.role for result in played.proposer.results()} == {"trial"}


def test_epochs_of_all_rows_are_those_that_were_trained(space: Spaces, driver: Drivers) -> None:
    results = driver(space(**LATE, **SHARE)).run().proposer.results()
    assert [(result.epochs, result.inherited) for result in results] == [(3, 0)] + [(1, 2)] * 5
    assert sum(result.epochs for result in results) == 8
    words = "Forks began with what other trials had trained: 8 epochs were trained where all alone would have taken 18."
    assert list(shared_sentences(results)) == [words]
    assert list(shared_sentences(results[:1])) == []


def test_a_seed_has_a_prefix_of_its_own_where_several_replicates_need_it(space: Spaces, driver: Drivers) -> None:
    played = driver(space(**LATE, **REPLICATED)).run()
    assert [name for name in played.order if name.startswith("p")] == ["p000-s0", "p001-s1"]


def test_controls_share_with_the_trials(space: Spaces, driver: Drivers) -> None:
    watched = Watched()
    control = {"pdrs.rho_shared": 0.5, "pdrs.margin": 1}
    driver(space(**LATE, **SHARE, controls=[control, {"method": "dora"}]), watchers=[watched]).run()
    assert watched.jobs["c00-s0"].parent == "p000-s0"
    assert watched.jobs["c01-s0"].parent == ""


def test_a_prefix_that_fails_leaves_its_trials_to_train_alone_and_counts_as_no_failure(
    space: Spaces, driver: Drivers, trainer: Callable[..., Any]
) -> None:
    def train(job: Job, epoch: int) -> dict[str, Any]:
        return {"error": 1.0} if job.role == "prefix" else trainer(job, epoch)

    watched = Watched()
    played = driver(space(**LATE, **SHARE), train=train, watchers=[watched]).run()
    assert watched.results["p000-s0"].state == "FAIL"
    assert {job.parent for name, job in watched.jobs.items() if name.startswith("t")} == {""}
    assert played.search_state.failures == 0
    assert played.proposer.counts()["complete"] == 6


def test_early_stopping_sees_inherited_epochs_as_trained_ones(space: Spaces, driver: Drivers, tmp_path: Path) -> None:
    rule: dict[str, Any] = {
        "base": {"pdrs": {"start_epoch": 1, "free_epochs": 1}, "optim": {"epochs": 6}},
        "scheduler": {"type": "asha", "min_epochs": 1, "reduction": 2},
    }
    found = {}
    for share in (True, False):
        search = {"share_prefixes": share, "lag": 1}
        results = driver(space(**rule, search=search), tmp_path / str(share)).run().proposer.results()
        found[share] = [(r.trial_id, r.state, r.reason, r.epochs + r.inherited, r.metrics) for r in results]
    assert found[True] == found[False]


def test_a_search_that_was_killed_at_any_moment_goes_on_as_if_it_had_not(
    space: Spaces, driver: Drivers, tmp_path: Path
) -> None:
    """After every step of the undisturbed search: in a prefix, between its end and its forks, in a fork."""
    made = space(**LATE, **REPLICATED)
    whole = driver(made, tmp_path / "whole").run()
    wanted = rows(whole.proposer.results())
    for steps in range(1, 18, 2):
        journal = tmp_path / f"killed{steps}"
        killed = driver(made, journal)
        for _ in range(steps):
            killed.take()
            for name in list(killed.open):
                killed.step(name)
        removed: list[str] = []
        resumed = driver(made, journal, remove_prefix=removed.append).run()
        assert rows(resumed.proposer.results()) == wanted
        again = {name for name in resumed.order if name.startswith("p")}
        done = {
            name.removeprefix(PREFIX): row["state"] for name, row in killed.study.user_attrs.items() if PREFIX in name
        }
        assert not {name for name in again if done.get(name) in ("trained", "removed")}
        assert sum(r.epochs for r in resumed.proposer.results()) == sum(r.epochs for r in whole.proposer.results())


def test_a_prefix_is_kept_while_a_trial_may_fork_from_it(space: Spaces, driver: Drivers) -> None:
    removed: list[str] = []
    played = driver(space(**LATE, **SHARE), remove_prefix=removed.append)
    while not removed:
        played.take()
        for name in list(played.open):
            played.step(name)
    begun = [name for name in played.order if name.startswith("t")]
    assert len(begun) == 6
    assert played.search_state.running[begun[-1]].epochs == 1


def test_a_search_without_lag_and_one_at_a_time_draws_what_it_draws_alone(
    space: Spaces, driver: Drivers, tmp_path: Path
) -> None:
    found = [
        driver(space(**LATE, search={"share_prefixes": share}), tmp_path / str(share)).run().proposer.results()
        for share in (True, False)
    ]
    assert rows(found[0]) == rows(found[1])


def test_a_report_of_a_running_search_takes_no_prefix_for_a_trial(
    space: Spaces, driver: Drivers, tmp_path: Path
) -> None:
    played = driver(space(**LATE, **SHARE))
    played.take()
    (tmp_path / "trials" / "p000-s0").mkdir(parents=True)
    assert [row.trial_id for row in open_trials(tmp_path, played.study, [])] == ["t000-s0"]
