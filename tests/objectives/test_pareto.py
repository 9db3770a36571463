"""The Pareto front, layers of non-domination and crowding distance, against definitions written out."""

from __future__ import annotations

import itertools
import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from optuna.study._multi_objective import _fast_non_domination_rank

from faar_ray.objectives.metrics import Objective
from faar_ray.objectives.pareto import crowding_distance, domination_rank, nondominated_layers, pareto_front

UP, DOWN = Objective(name="delta_m", goal="maximize"), Objective(name="trainable_params", goal="minimize")
named_points = st.dictionaries(
    st.text("abcdefgh", min_size=1, max_size=2), st.tuples(st.integers(0, 6), st.integers(0, 6)), min_size=1
)
Row = tuple[int, ...]
rows = st.integers(2, 3).flatmap(lambda m: st.lists(st.tuples(*[st.integers(0, 5)] * m), min_size=1, max_size=14))


def dominates(first: Row, second: Row) -> bool:
    return first != second and all(one <= other for one, other in zip(first, second, strict=True))


@given(rows)
def test_layers_are_those_of_brute_force_and_of_optuna(points: list[Row]) -> None:
    left, expected = set(range(len(points))), []
    while left:
        layer = {i for i in left if not any(dominates(points[j], points[i]) for j in left)}
        expected.append(layer)
        left -= layer
    losses = np.array(points, dtype=float)
    result = list(nondominated_layers(losses))
    assert [set(layer) for layer in result] == expected
    assert all(layer == sorted(layer, key=lambda i: points[i][0]) for layer in result)
    ranks = _fast_non_domination_rank(losses)
    assert all(ranks[index] == number for number, layer in enumerate(result) for index in layer)


def test_room_is_the_width_between_neighbours_and_endless_at_the_ends() -> None:
    losses = np.array([[0.0, 10.0], [1.0, 4.0], [4.0, 2.0], [10.0, 0.0]])
    assert crowding_distance(losses) == pytest.approx([np.inf, 0.4 + 0.8, 0.9 + 0.4, np.inf])
    assert list(crowding_distance(np.array([[0.0, 2.0], [1.0, 1.0], [1.0, 1.0], [2.0, 0.0]]))) == [np.inf, 0, 0, np.inf]
    assert list(crowding_distance(np.array([[3.0, 3.0], [3.0, 3.0]]))) == [0, 0]


@given(rows)
def test_who_dominates_stands_before_and_the_order_of_the_points_changes_nothing(points: list[Row]) -> None:
    losses = np.array(points, dtype=float)
    ahead = [domination_rank(losses, index) for index in range(len(points))]
    turned = [domination_rank(losses[::-1], index) for index in range(len(points))][::-1]
    assert ahead == turned
    for i, j in itertools.permutations(range(len(points)), 2):
        assert not dominates(points[i], points[j]) or ahead[i] < ahead[j]


def beats(a: tuple[int, int], b: tuple[int, int]) -> bool:
    return a[0] >= b[0] and a[1] <= b[1] and a != b


@given(named_points)
def test_the_front_is_exactly_what_nothing_beats(points: dict[str, tuple[int, int]]) -> None:
    front = pareto_front(points, [UP, DOWN])

    assert front == {k for k, v in points.items() if not any(beats(o, v) for o in points.values())}
    assert front


@given(named_points)
def test_what_is_off_the_front_is_beaten_by_something_on_it(points: dict[str, tuple[int, int]]) -> None:
    front = pareto_front(points, [UP, DOWN])

    assert all(any(beats(points[f], v) for f in front) for k, v in points.items() if k not in front)


@given(st.dictionaries(st.text("ab"), st.integers(0, 9), min_size=1))
def test_one_objective_leaves_the_best(points: dict[str, int]) -> None:
    front = pareto_front({k: [v] for k, v in points.items()}, [UP])

    assert {points[k] for k in front} == {max(points.values())}


def test_what_has_no_number_is_on_no_front() -> None:
    values = {"a": (1.0, math.nan), "b": (math.nan, math.nan), "c": (2.0, 3.0), "d": (1.0, 4.0)}
    assert pareto_front(values, [UP, DOWN]) == {"c"}
    assert pareto_front({"b": (math.nan, math.nan)}, [UP, DOWN]) == set()
    assert pareto_front({"b": (math.nan,), "c": (-1.0,)}, [UP]) == {"c"}
