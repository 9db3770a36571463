"""Parameters, Optuna's distributions, and the sampler of one ask."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import optuna
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from optuna.distributions import CategoricalDistribution, FloatDistribution, IntDistribution

from faar_ray.tune.propose.ask import sampler_of
from faar_ray.tune.propose.distributions import distribution, draw, from_optuna, optuna_name, to_optuna
from faar_ray.tune.space.conditions import unmet_condition
from faar_ray.tune.space.initial_points import first_points
from faar_ray.tune.space.parameter import Parameter
from faar_ray.tune.space.rules import sampler_faults
from faar_ray.tune.space.sections import SearchConfig
from faar_ray.tune.space.space import SearchSpace

LOG1M = Parameter(min=0.5, max=0.995, scale="log1m")


@given(st.floats(0.5, 0.995))
def test_log1m_gives_back_x(x: float) -> None:
    stored = to_optuna({"rho": LOG1M}, {"rho": x})
    assert from_optuna({"rho": LOG1M}, stored)["rho"] == pytest.approx(x, abs=1e-12)


def test_both_bounds_of_log1m_can_be_enqueued() -> None:
    dist = distribution(LOG1M)
    for x in (0.5, 0.995):
        assert dist._contains(dist.to_internal_repr(to_optuna({"rho": LOG1M}, {"rho": x})["1 - rho"]))


def test_log1m_draws_as_often_near_the_top_as_near_the_bottom() -> None:
    study = optuna.create_study(sampler=optuna.samplers.RandomSampler(seed=0))
    drawn = [study.ask({"u": distribution(LOG1M)}).params["u"] for _ in range(400)]
    middle = (0.5 * 0.005) ** 0.5  # of 1 - x, on a log scale
    assert 0.42 < sum(u < middle for u in drawn) / 400 < 0.58


def test_integers_floats_and_choices_keep_their_kind() -> None:
    assert distribution(Parameter(min=4, max=64, log=True)) == IntDistribution(4, 64, log=True)
    assert distribution(Parameter(min=0.1, max=1.0)) == FloatDistribution(0.1, 1.0)
    assert distribution(Parameter(values=(8, 16))) == CategoricalDistribution((8, 16))


def test_priors_make_one_first_point_and_warm_starts_follow_once_each() -> None:
    parameters = {"a": Parameter(min=0.0, max=1.0, prior=0.5), "b": Parameter(values=(1, 2), prior=2)}
    points = first_points(parameters, {}, ({"a": 0.1}, {"a": 0.5, "b": 2}, {"a": 0.1}))
    assert points == [{"a": 0.5, "b": 2}, {"a": 0.1}]


@pytest.mark.parametrize("name", ["tpe", "random"])
def test_an_ask_depends_on_its_number_and_the_seed_alone(space: Callable[..., SearchSpace], name: str) -> None:
    def ask(seed: int, number: int) -> float:
        parameters = space().parameters
        study = optuna.create_study(sampler=sampler_of(SearchConfig(sampler=name, seed=seed), parameters, number))
        return float(draw(study.ask(), parameters, {})["pdrs.rho_shared"])

    assert ask(0, 3) == ask(0, 3)
    assert len({ask(0, 3), ask(0, 4), ask(1, 3)}) == 3


@st.composite
def bounds(draw: st.DrawFn, low: float, high: float) -> dict[str, Any]:
    """`min` and `max` that are apart, and a prior between them; as a person writes them, or with all digits."""
    numbers = st.floats(low, high) | st.floats(low, high).map(lambda x: float(f"{x:.3g}"))
    values = draw(st.lists(numbers.filter(lambda x: low <= x <= high), min_size=3, max_size=3, unique=True).map(sorted))
    prior = draw(st.sampled_from([None, *values]))
    return {"min": values[0], "max": values[2]} | ({} if prior is None else {"prior": prior})


def scaled(ranges: st.SearchStrategy[dict[str, Any]], **how: Any) -> st.SearchStrategy[dict[str, Any]]:
    return ranges.map(lambda parameter: parameter | how)


RANGES = {
    "pdrs.rho_shared": scaled(bounds(0.05, 0.9999999999999), scale="log1m") | bounds(0.01, 1.0),
    "optim.lr": scaled(bounds(1e-12, 1.0), log=True) | bounds(1e-6, 1e3),
    "pdrs.margin": st.sampled_from([{"min": 0, "max": 3}, {"min": 1, "max": 64, "log": True, "prior": 8}]),
    "optim.weight_decay": st.sampled_from([{"min": 0, "max": 1}, {"values": [0.0, 1e-4, 5e-2], "prior": 1e-4}]),
    "sinewich.sigma": scaled(bounds(0.01, 9.0), when={"method": "free_sinewich"}) | bounds(0.02, 2.0),
    "decoder.cutoff": scaled(bounds(0.1, 1.0), scale="linear", when={"decoder.kind": ["ts_pd"]}) | bounds(0.1, 1.0),
    "decoder.filter": st.sampled_from(
        [{"values": ["grid", "radial"]}, {"values": ["radial"], "when": {"method": "faar"}}]
    ),
    "method": st.just({"values": ["faar", "free_sinewich", "lora"], "prior": "lora"}),
}
PARAMETERS = st.lists(st.sampled_from(list(RANGES)), min_size=1, max_size=5, unique=True).flatmap(
    lambda keys: st.fixed_dictionaries({key: RANGES[key] for key in {"method": 0} | dict.fromkeys(keys)})
)


def of(parameters: dict[str, Any]) -> SearchSpace:
    """A space of these parameters."""
    objectives = [{"name": "delta_m", "goal": "maximize"}]
    return SearchSpace.model_validate(
        {
            "version": 1,
            "name": "drawn",
            "parameters": parameters,
            "objectives": objectives,
            "search": {"sampler": "random"},
        }
    )


def some_trials(space: SearchSpace, sampler: str, seed: int, number: int) -> list[dict[str, Any]]:
    """What a sampler draws, told results that mean nothing; what it cannot take is left out."""
    search = SearchConfig(sampler=sampler, seed=seed, startup_trials=2, population=None)
    refused = list(sampler_faults(search, space.parameters, ["delta_m"], ()))
    ranges = {
        key: one for key, one in space.parameters.items() if not one.when and (sampler != "cmaes" or not one.values)
    }
    parameters = ranges if refused else space.parameters
    study = optuna.create_study(direction="maximize")
    drawn = []
    for index in range(number if parameters else 0):
        study.sampler = sampler_of(search, parameters, index)
        trial = study.ask()
        drawn.append(draw(trial, parameters, space.base))
        study.tell(trial, float(index % 3))
    return drawn


def fit(space: SearchSpace, drawn: dict[str, Any]) -> None:
    """Within bounds, a trial, and through Optuna and back without a change."""
    for key, value in drawn.items():
        parameter = space.parameters[key]
        assert parameter.contains(value)
        assert not unmet_condition(parameter, space.base, drawn)
        name = optuna_name(key, parameter)
        stored = to_optuna(space.parameters, {key: value})[name]
        dist = distribution(parameter)
        assert dist._contains(dist.to_internal_repr(stored))
    assert from_optuna(space.parameters, to_optuna(space.parameters, drawn)) == drawn
    config = space.trial_config(drawn).dotted()
    assert {key: config[key] for key in drawn} == drawn


@settings(max_examples=60, derandomize=True)
@given(PARAMETERS, st.sampled_from(["random", "tpe", "nsga2", "qmc", "cmaes"]), st.integers(0, 99))
def test_every_draw_lies_within_bounds_and_comes_back_from_optuna(
    parameters: dict[str, Any], sampler: str, seed: int
) -> None:
    searched = of(parameters)
    for drawn in some_trials(searched, sampler, seed, 7):
        fit(searched, drawn)


@settings(max_examples=5, derandomize=True)
@given(PARAMETERS, st.integers(0, 99))
def test_draws_of_the_gaussian_process_lie_within_bounds(parameters: dict[str, Any], seed: int) -> None:
    for drawn in some_trials(of(parameters), "gp", seed, 4):
        fit(of(parameters), drawn)


@settings(derandomize=True)
@given(PARAMETERS)
def test_priors_bounds_and_choices_come_back_from_optuna(parameters: dict[str, Any]) -> None:
    searched = of(parameters)
    for key, parameter in searched.parameters.items():
        output = [value for _, value in parameter.extremes()]
        output += [] if parameter.prior is None else [parameter.prior]
        for value in output:
            back = from_optuna(searched.parameters, to_optuna(searched.parameters, {key: value}))[key]
            assert parameter.contains(back)
            assert type(back) is type(value)
            assert back == (pytest.approx(value, abs=1e-12) if parameter.scale == "log1m" else value)
            if parameter.scale == "log1m" and round(value, 9) == value:
                assert back == value


def test_a_bound_with_more_digits_than_are_kept_is_not_passed() -> None:
    near = {"rho": Parameter(min=0.5, max=1 - 1e-14, scale="log1m")}
    assert from_optuna(near, {"1 - rho": 1e-14}) == {"rho": 1 - 1e-14}
