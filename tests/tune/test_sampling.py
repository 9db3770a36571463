"""Parameters, Optuna's distributions, and the sampler of one ask."""

from __future__ import annotations

from collections.abc import Callable

import optuna
import pytest
from hypothesis import given
from hypothesis import strategies as st
from optuna.distributions import CategoricalDistribution, FloatDistribution, IntDistribution

from faar_ray.tune.parameter import Parameter
from faar_ray.tune.points import first_points
from faar_ray.tune.samplers import sampler_of
from faar_ray.tune.sampling import distribution, draw, from_optuna, to_optuna
from faar_ray.tune.space import SearchSpace
from faar_ray.tune.space_sections import SearchConfig

LOG1M = Parameter(min=0.5, max=0.995, scale="log1m")


@given(st.floats(0.5, 0.995))
def test_log1m_gives_back_x(x: float) -> None:
    held = to_optuna({"rho": LOG1M}, {"rho": x})
    assert from_optuna({"rho": LOG1M}, held)["rho"] == pytest.approx(x, abs=1e-12)


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
