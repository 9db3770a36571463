"""Which beginnings are worth training once: pure decisions, over small spaces and over all that are shipped."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from faar_ray.config.moments.moment import START, Moment
from faar_ray.config.moments.sharing import shared_until
from faar_ray.config.trial import TrialConfig
from faar_ray.tune.share.stages import (
    Demand,
    Prefix,
    StagePlanner,
    known_betas,
    planned_demands,
    planned_epochs,
    why_not_shared,
)
from faar_ray.tune.space.space import SearchSpace, read_space

SHIPPED = sorted((Path(__file__).parents[3] / "search_spaces").glob("*.yaml"))
LATE = {"base": {"pdrs": {"start_epoch": 1}}}
Spaces = Callable[..., SearchSpace]


def chain_of(space: SearchSpace, config: TrialConfig, others: list[Demand], existing: tuple[Prefix, ...] = ()) -> Any:
    return StagePlanner(space).chain(config, others, existing, len(existing))


@pytest.mark.parametrize("path", SHIPPED, ids=lambda path: path.stem)
def test_in_every_shipped_space_forks_share_what_they_inherit_and_epochs_add_up(path: Path) -> None:
    """Each trial's config is, up to where it forks, the config of the prefixes that it comes from, and so its result
    is what it would be alone: that trainings are equal up to a moment is proved by trainings in `forks`."""
    space = read_space(path)
    planner, demands = StagePlanner(space), planned_demands(space)
    prefixes: list[Prefix] = []
    trained = 0
    for index, demand in enumerate(demands):
        chain = planner.chain(demand.config, demands[index + 1 :], prefixes, len(prefixes))
        begins = START
        for prefix in chain:
            assert prefix.config.seed == demand.config.seed
            assert shared_until(prefix.config, demand.config, prefix.betas) >= prefix.until
            assert begins < prefix.until
            if prefix not in prefixes:
                assert (prefix.begins, prefix.parent != "") == (begins, begins != START)
                trained += prefix.own_epochs
            begins = prefix.until
        prefixes += [prefix for prefix in chain if prefix not in prefixes]
        trained += demand.config.optim.epochs - begins.inherited
    alone, shared = planned_epochs(space)
    assert trained <= shared <= alone == sum(demand.config.optim.epochs for demand in demands)
    used = {prefix.name for prefix in prefixes}
    assert len(used) == len(prefixes)


def test_the_main_search_saves_a_fifth_of_its_epochs_and_beta_a_quarter() -> None:
    by_name = {path.stem: planned_epochs(read_space(path)) for path in SHIPPED}
    assert by_name["rho"] == (60, 48)
    assert by_name["beta"] == (90, 66)
    assert by_name["init_rank"] == (72, 72)


def test_trials_that_differ_in_rho_share_all_up_to_the_first_shrink(space: Spaces) -> None:
    made = space(**LATE)
    config = made.trial_config({"pdrs.rho_shared": 0.9})
    (prefix,) = chain_of(made, config, [Demand(config, drawn=True)])
    assert (prefix.name, prefix.until, prefix.parent) == ("p000-s0", Moment(1, at_end=True), "")
    other = made.trial_config({"pdrs.rho_shared": 0.5})
    assert chain_of(made, other, [], (prefix,)) == [prefix]
    assert chain_of(made, other, []) == []
    assert chain_of(made, made.trial_config({"seed": 1}), [], (prefix,)) == []


def test_a_longer_prefix_forks_from_a_shorter_one(space: Spaces) -> None:
    made = space(base={"optim": {"epochs": 6}})
    a, b, c = (
        made.trial_config({"pdrs.start_epoch": at, "pdrs.rho_shared": rho})
        for at, rho in ((1, 0.5), (3, 0.5), (3, 0.8))
    )
    one, two = chain_of(made, b, [Demand(c), Demand(a)])
    assert (one.until, two.until) == (Moment(1, at_end=True), Moment(3, at_end=True))
    assert (two.parent, two.begins, two.own_epochs) == (one.name, one.until, 2)
    assert chain_of(made, c, [], (one, two)) == [one, two]
    assert chain_of(made, a, [], (one, two)) == [one]


def test_epochs_without_masks_and_full_trainings_are_shared_too(space: Spaces) -> None:
    made = space(base={"optim": {"epochs": 6}})
    masked, free = (made.trial_config({"pdrs.free_epochs": free}) for free in (0, 2))
    (prefix,) = chain_of(made, masked, [Demand(free)])
    assert prefix.until == Moment(4)
    (whole,) = chain_of(made, masked, [Demand(masked)])
    assert whole.until == Moment(5, at_end=True)


@pytest.mark.parametrize(
    ("parameters", "until"),
    [
        ({"pdrs.beta": {"values": [0.5, 0.9]}}, 2),
        ({"pdrs.beta": {"min": 0.5, "max": 0.9}}, 0),
        ({"pdrs.rho_shared": {"min": 0.5, "max": 0.9}, "optim.lr": {"min": 1e-4, "max": 1e-3}}, 0),
        ({"pdrs.margin": {"min": 0, "max": 2}, "pdrs.scope": {"values": ["adapter", "pooled"]}}, 2),
        ({"pdrs.start_epoch": {"values": [0, 1]}}, 2),
        ({"ranks.init_rank": {"values": [2, 4]}}, 0),
    ],
)
def test_the_space_says_whether_all_trials_of_a_seed_share_a_prefix(
    parameters: dict[str, Any], until: int, conditional: Callable[..., SearchSpace]
) -> None:
    made = conditional(parameters=parameters)
    made = made.model_copy(update={"base": {**made.base, "pdrs": {"start_epoch": 1}}})
    config = made.trial_config({})
    assert StagePlanner(made).parted(config).inherited == until


def test_values_of_beta_are_carried_where_they_are_known_and_few(conditional: Callable[..., SearchSpace]) -> None:
    def betas(values: Any, **over: Any) -> tuple[float, ...]:
        return known_betas(conditional(parameters={"pdrs.beta": values}, **over))

    assert betas({"values": [0.5, 0.9]}) == (0.5, 0.9, 0.98)
    assert betas({"min": 0.5, "max": 0.9}) == ()
    assert betas({"values": [0.98]}) == ()
    assert betas({"values": [i / 40 for i in range(30)]}) == ()


def test_who_shares_nothing_is_told_why(space: Spaces) -> None:
    assert "false" in why_not_shared(space())
    assert why_not_shared(space(search={"share_prefixes": True})) == ""
    population = {"type": "pbt", "population": 2}
    search = {"share_prefixes": True, "sampler": "random"}
    assert "pbt" in why_not_shared(space(scheduler=population, search=search))
