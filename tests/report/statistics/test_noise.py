from __future__ import annotations

import math
from collections.abc import Mapping

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import stats

from faar_ray.report.statistics.noise import Observation, SeedModel

values = st.floats(-50, 50).map(lambda x: round(x, 3))


def model(table: Mapping[str, Mapping[int, float]]) -> SeedModel:
    return SeedModel("delta_m", [Observation(c, s, v) for c, row in table.items() for s, v in row.items()])


@settings(max_examples=60, deadline=None)
@given(st.lists(st.tuples(values, values), min_size=2, max_size=6))
def test_two_configs_on_common_seeds_give_the_paired_t_interval(pairs: list[tuple[float, float]]) -> None:
    first, second = np.array(pairs).T
    result = model({"a": dict(enumerate(first)), "b": dict(enumerate(second))}).difference("a", "b")
    gaps = first - second

    half = stats.t.ppf(0.975, len(gaps) - 1) * gaps.std(ddof=1) / math.sqrt(len(gaps))

    assert result.value == pytest.approx(gaps.mean(), abs=1e-9)
    assert result.ci95 == pytest.approx(half, abs=1e-6)
    assert result.dof == len(gaps) - 1


@settings(max_examples=60, deadline=None)
@given(st.lists(values, min_size=2, max_size=4), st.lists(values, min_size=2, max_size=4))
def test_configs_without_a_common_seed_give_the_pooled_two_sample_interval(a: list[float], b: list[float]) -> None:
    result = model({"a": dict(enumerate(a)), "b": dict(enumerate(b, start=10))}).difference("a", "b")
    dof = len(a) + len(b) - 2
    pooled = (np.var(a) * len(a) + np.var(b) * len(b)) / dof

    half = stats.t.ppf(0.975, dof) * math.sqrt(pooled * (1 / len(a) + 1 / len(b)))

    assert result.value == pytest.approx(np.mean(a) - np.mean(b), abs=1e-9)
    assert result.ci95 == pytest.approx(half, abs=1e-6)
    assert result.dof == dof


@settings(max_examples=40, deadline=None)
@given(
    st.lists(st.lists(values, min_size=3, max_size=3), min_size=2, max_size=5), st.lists(values, min_size=3, max_size=3)
)
def test_a_seeds_own_effect_changes_no_difference_and_no_paired_noise(
    rows: list[list[float]], effects: list[float]
) -> None:
    plain = model({str(i): dict(enumerate(row)) for i, row in enumerate(rows)})
    moved = model({str(i): {s: v + effects[s] for s, v in enumerate(row)} for i, row in enumerate(rows)})

    assert moved.noise.sd == pytest.approx(plain.noise.sd, abs=1e-6)
    assert moved.difference("0", "1").value == pytest.approx(plain.difference("0", "1").value, abs=1e-6)
    assert moved.difference("0", "1").ci95 == pytest.approx(plain.difference("0", "1").ci95, abs=1e-5)


def test_a_single_seed_is_compared_on_that_seed() -> None:
    result = model({"a": {0: 1.0, 1: -9.0}, "b": {0: 0.0}, "c": {0: 2.0, 1: -8.0}})

    assert result.difference("a", "b").value == pytest.approx(1.0)  # not mean(1, -9) - 0
    assert result.mean("a") - result.mean("b") == pytest.approx(1.0)


def test_eight_trials_with_three_configs_on_two_seeds_leave_two_degrees_of_freedom() -> None:
    rows = {c: {0: float(i), 1: i + 0.1 * i} for i, c in enumerate("abc")} | {"d": {0: 5.0}, "e": {0: 6.0}}

    noise = model(rows).noise

    assert (noise.dof, noise.spread_dof, noise.paired) == (2, 3, True)
    assert model(rows).difference("d", "e").ci95 == pytest.approx(stats.t.ppf(0.975, 2) * noise.sd * math.sqrt(2))


def test_one_config_on_two_seeds_gives_unpaired_noise_with_one_degree_of_freedom() -> None:
    result = model({"a": {0: 1.0, 1: 2.0}, "b": {0: 5.0}})

    assert (result.noise.dof, result.noise.paired) == (1, False)
    assert result.noise.sd == pytest.approx(math.sqrt(0.5))
    assert result.difference("b", "a").value == pytest.approx(4.0)  # still on the common seed


def test_without_repeats_noise_is_unknown_and_nothing_is_told_apart() -> None:
    result = model({"a": {0: 1.0}, "b": {0: 100.0}})

    assert result.noise.dof == 0
    assert math.isnan(result.noise.sd)
    assert result.difference("b", "a").value == pytest.approx(99.0)
    assert not result.difference("b", "a").is_significant
    assert math.isnan(result.standard_error("a"))


def test_equal_values_are_not_told_apart_even_without_any_noise() -> None:
    result = model({c: {0: -3.3, 1: 7.1, 2: 0.1} for c in "abc"})

    assert result.noise.sd == pytest.approx(0, abs=1e-9)
    assert not result.difference("a", "c").is_significant


def test_the_interval_holds_the_truth_about_as_often_as_it_says() -> None:
    dice, stored = np.random.default_rng(0), 0
    for _ in range(300):
        seeds = dice.normal(0, 2, 2)
        rows = {c: {s: i + seeds[s] + dice.normal(0, 0.3) for s in range(2)} for i, c in enumerate("abcd")}
        result = model(rows).difference("d", "a")
        stored += abs(result.value - 3) <= result.ci95

    assert 0.92 <= stored / 300 <= 0.98


def test_no_trials_have_no_noise() -> None:
    assert model({}).noise.dof == 0
