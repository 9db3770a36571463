"""Relations between keys of a trial: read, refused, and kept by whatever proposes."""

from __future__ import annotations

import io
import random
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from pydantic import ValidationError
from rich.console import Console

from faar_ray.errors import ConfigError
from faar_ray.tune.propose.exploit import perturbed
from faar_ray.tune.propose.related_draws import check_relations
from faar_ray.tune.propose.samplers import SAMPLERS
from faar_ray.tune.propose.warm_start import unfit
from faar_ray.tune.show.dry_run import samples, show_plan
from faar_ray.tune.space.relations import parse_relation
from faar_ray.tune.space.space import SearchSpace, read_space

Space = Callable[..., SearchSpace]
Drive = Callable[..., Any]
RHOS: dict[str, Any] = {
    "pdrs.rho_task": {"min": 0.5, "max": 0.99, "scale": "log1m"},
    "pdrs.rho_shared": {"min": 0.5, "max": 0.99, "scale": "log1m"},
}
RELATION = "pdrs.rho_task <= pdrs.rho_shared"


def related(space: Space, sampler: str = "random", *relations: str, **over: Any) -> SearchSpace:
    raw = space().model_dump(mode="json", exclude_unset=True)
    parts = {
        "parameters": RHOS,
        "relations": relations or [RELATION],
        "objectives": [{"name": "delta_m", "goal": "maximize"}],
        "search": {"sampler": sampler, "startup_trials": 4, "population": 4 if sampler in ("nsga2", "cmaes") else None},
        "scheduler": {"type": "none"},
        "budget": {"trials": 8 if sampler == "gp" else 14},
    }
    return SearchSpace.model_validate({**raw, **parts, **over})


def drawn_to_the_edge(job: Any, epoch: int) -> dict[str, float]:
    """Best where the relation is broken, so that what learns proposes that."""
    return {"delta_m": job.config.pdrs.rho_task - job.config.pdrs.rho_shared}


def kept(params: dict[str, Any]) -> bool:
    return bool(params["pdrs.rho_task"] <= params["pdrs.rho_shared"])


@pytest.mark.parametrize(
    "sampler",
    [
        pytest.param(name, marks=pytest.mark.slow) if name == "gp" else name
        for name, entry in SAMPLERS.items()
        if not entry.listed
    ],
)
def test_no_sampler_proposes_what_breaks_a_relation_and_a_resumed_one_proposes_the_same(
    space: Space, driver: Drive, tmp_path: Path, sampler: str
) -> None:
    searched = related(space, sampler)

    whole = driver(searched, tmp_path / "whole.log", train=drawn_to_the_edge).run()
    parts = driver(searched, tmp_path / "parts.log", train=drawn_to_the_edge)
    while not parts.search_state.finished():
        parts.take()
        for name in list(parts.open):
            parts.step(name)
        if not parts.open:
            parts = driver(searched, tmp_path / "parts.log", train=drawn_to_the_edge)

    found = [result.params for result in whole.proposer.results()]
    assert len(found) == searched.budget.trials
    assert all(map(kept, found))
    assert len({str(params) for params in found}) > 6
    assert [result.params for result in parts.proposer.results()] == found


@pytest.mark.filterwarnings("ignore:The reported value is ignored")  # of an epoch that is journalled in part
@pytest.mark.parametrize("sampler", ["tpe", "nsga2", "cmaes"])
def test_a_search_killed_anywhere_in_its_last_proposals_goes_on_with_the_same_values(
    space: Space, driver: Drive, tmp_path: Path, sampler: str
) -> None:
    searched = related(space, sampler)
    whole = driver(searched, tmp_path / "whole.log", train=drawn_to_the_edge).run()
    found = [result.params for result in whole.proposer.results()]
    lines = (tmp_path / "whole.log").read_text().splitlines(keepends=True)

    for cut in range(len(lines) - 30, len(lines), 3):
        (tmp_path / "cut.log").write_text("".join(lines[:cut]))
        again = driver(searched, tmp_path / "cut.log", train=drawn_to_the_edge).run()
        assert [result.params for result in again.proposer.results()] == found, cut


def test_without_the_relation_the_same_search_breaks_it(space: Space, driver: Drive) -> None:
    free = driver(related(space, relations=[]), train=drawn_to_the_edge).run()
    assert not all(kept(result.params) for result in free.proposer.results())


def test_copies_of_a_population_keep_relations(space: Space, driver: Drive) -> None:
    pbt = {"type": "pbt", "metric": "delta_m", "population": 4, "min_epochs": 1, "interval": 1, "quantile": 0.5}
    results = driver(related(space, scheduler=pbt), train=drawn_to_the_edge).run().proposer.results()
    assert len(results) > 4
    assert all(kept(result.params) for result in results)


def test_a_copy_that_could_only_break_a_relation_has_its_parents_values(space: Space) -> None:
    searched = related(space)
    parent = {"pdrs.rho_task": 0.6, "pdrs.rho_shared": 0.7}
    assert perturbed(parent, searched.parameters, random.Random(0), keep=lambda sample: False) == parent


def test_a_grid_leaves_out_the_combinations_that_break_a_relation(space: Space) -> None:
    values = {key: {"values": [0.5, 0.7, 0.9]} for key in RHOS}
    searched = related(space, "grid", parameters=values)
    assert len(searched.planned()) == 6
    assert all(map(kept, searched.planned()))
    assert check_relations(searched) == "relations: 6 of the listed configurations keep them"
    with pytest.raises(ValidationError, match="leave no combination of the grid"):
        related(space, "grid", "pdrs.rho_task > 1", parameters=values)


def test_null_is_judged_by_the_value_that_it_stands_for(space: Space) -> None:
    nulls = {"pdrs.rho_task": {"values": [None, 0.6]}, "pdrs.rho_shared": RHOS["pdrs.rho_shared"]}
    keep = related(space, "random", RELATION, "pdrs.rho_task <= 0.8", parameters=nulls).related.keep
    assert keep({"pdrs.rho_task": None, "pdrs.rho_shared": 0.7})
    assert not keep({"pdrs.rho_task": None, "pdrs.rho_shared": 0.9})
    assert keep({"pdrs.rho_task": None})  # rho_shared is not known yet
    assert not keep({"pdrs.rho_task": 0.6, "pdrs.rho_shared": 0.5})


def test_a_relation_to_a_key_of_the_base_and_arithmetic_are_judged(space: Space) -> None:
    keep = related(space, "random", "0.1 <= (pdrs.rho_shared - pdrs.rho_task) * optim.epochs / 3").related.keep
    assert keep({"pdrs.rho_task": 0.5, "pdrs.rho_shared": 0.7})
    assert not keep({"pdrs.rho_task": 0.65, "pdrs.rho_shared": 0.7})


def test_a_relation_is_not_judged_where_its_parameter_is_not_searched(space: Space) -> None:
    parameters = {
        "method": {"values": ["faar", "free_sinewich"]},
        "sinewich.rank": {"min": 8, "max": 64, "when": {"method": "free_sinewich"}},
        "ranks.init_rank": {"min": 2, "max": 32},
    }
    keep = related(space, "random", "sinewich.rank <= ranks.init_rank", parameters=parameters).related.keep
    assert keep({"method": "faar", "ranks.init_rank": 2})
    assert not keep({"method": "free_sinewich", "sinewich.rank": 8, "ranks.init_rank": 2})


def test_values_that_only_conflict_where_a_relation_is_broken_are_no_fault(space: Space) -> None:
    parameters = {"pdrs.start_epoch": {"min": 0, "max": 2}, "pdrs.free_epochs": {"min": 0, "max": 2}}
    with pytest.raises(ValidationError, match=r"must be below optim\.epochs"):
        related(space, relations=[], parameters=parameters)
    searched = related(space, "random", "pdrs.start_epoch < optim.epochs - pdrs.free_epochs", parameters=parameters)
    for point in samples(searched, 12):
        searched.trial_config(point)


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("pdrs.rho_task", "must compare keys and numbers"),
        ("pdrs.rho_task == pdrs.rho_shared", "not by =="),
        ("__import__('os').system('x') <= 1", "must compare keys and numbers"),
        ("pdrs.rho_task ** 2 <= 1", "not 'pdrs.rho_task ** 2'"),
        ("[1][0] <= pdrs.rho_task", "must compare keys and numbers"),
        ("pdrs.rho_task <=", "must compare keys and numbers"),
        ("pdrs.rho_tsk <= pdrs.rho_shared", "pdrs.rho_tsk: unknown key (did you mean 'pdrs.rho_task'?)"),
        ("trainable_params <= 4e6", "limits of metrics stand under constraints"),
        ("optim.lr <= 1", "must name a searched parameter"),
        ("pdrs.rho_task <= method", "method: must be a number in every trial, but may be 'faar'"),
        ("pdrs.rho_task <= decoder.width", "decoder.width: must be a number in every trial, but may be null"),
        ("pdrs.rho_task <= seed", "seed: is no part of a configuration"),
        ("(" * 400, "must have at most 300 characters"),
    ],
)
def test_what_is_no_relation_is_refused_with_the_reason(space: Space, text: str, words: str) -> None:
    with pytest.raises(ValidationError) as caught:
        related(space, "random", text)
    assert words in str(caught.value)


@pytest.mark.parametrize("text", ["pdrs.rho_task <= pdrs.rho_shared", "pdrs.rho_task <= 0.8"])
def test_a_relation_among_the_constraints_is_sent_to_its_place(space: Space, text: str) -> None:
    with pytest.raises(ValidationError, match="what relates keys of a trial stands under relations"):
        related(space, relations=[], constraints=[text])


def test_a_point_or_prior_that_breaks_a_relation_is_refused_at_its_place(tmp_path: Path) -> None:
    file = tmp_path / "x.yaml"
    head = (
        "version: 1\nname: x\nrelations: [pdrs.rho_task <= pdrs.rho_shared]\n"
        "objectives: [{name: delta_m, goal: maximize}]\nparameters:\n  pdrs.rho_task: {min: 0.5, max: 0.9}\n"
    )
    file.write_text(
        f"{head}  pdrs.rho_shared: {{min: 0.5, max: 0.9}}\nwarm_start:\n  points:\n"
        "    - {pdrs.rho_task: 0.5}\n    - {pdrs.rho_task: 0.8, pdrs.rho_shared: 0.7}\n"
    )
    words = f"must keep the relation {RELATION}, but pdrs.rho_task is 0.8 and pdrs.rho_shared is 0.7"
    with pytest.raises(ConfigError) as caught:
        read_space(file)
    assert caught.value.faults == (f"{file}:11:7: warm_start.points.1: {words}",)


def test_a_part_of_a_point_is_completed_so_that_relations_hold(space: Space, driver: Drive) -> None:
    searched = related(space, "random", warm_start={"points": [{"pdrs.rho_task": 0.97}]})
    first = driver(searched, train=drawn_to_the_edge).run().proposer.results()[0]
    assert first.params["pdrs.rho_task"] == 0.97
    assert kept(first.params)


def test_a_share_too_small_ends_before_anything_starts(space: Space) -> None:
    with pytest.raises(ConfigError, match=r"relations\.0: too hard to keep: 0 of 2,000 random draws keep"):
        check_relations(related(space, "random", "pdrs.rho_task + 0.489 < pdrs.rho_shared * 1.0"))
    unreachable = related(
        space, "random", "pdrs.rho_task < pdrs.rho_shared", warm_start={"points": [{"pdrs.rho_task": 0.99}]}
    )
    with pytest.raises(ConfigError, match=r"warm_start\.points\.0: no values of the other parameters keep"):
        check_relations(unreachable)


def test_a_dry_run_names_the_share_of_draws_that_keep_the_relations(space: Space) -> None:
    console = Console(file=io.StringIO(), width=200)
    show_plan(console, related(space), None)
    text = console.file.getvalue()  # type: ignore[attr-defined]
    share = float(text.split("relations: ")[-1].split("%")[0])
    assert 45 < share < 55  # of two equal ranges, one half


def test_a_trial_of_an_older_run_that_breaks_a_relation_does_not_fit(space: Space, driver: Drive) -> None:
    free = driver(related(space, relations=[]), train=drawn_to_the_edge).run().proposer.results()
    reasons = {kept(result.params): unfit(related(space), result) for result in free}
    assert reasons == {True: "", False: "break a relation"}


def test_a_division_by_zero_breaks_a_relation() -> None:
    assert not parse_relation("1 / pdrs.rho_task > 0").holds({"pdrs.rho_task": 0.0})
    assert parse_relation("-2 < -pdrs.rho_task <= 1e3").holds({"pdrs.rho_task": 1.0})
