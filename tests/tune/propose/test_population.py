"""Who is replaced by whose copy, with which values: expectations worked out by hand."""

from __future__ import annotations

import math
import random
from collections.abc import Callable

import pytest

from faar_ray.tune.propose.population import (
    FACTORS,
    RESAMPLED,
    Exploit,
    boundaries,
    copies,
    explored,
    quantile_size,
)
from faar_ray.tune.space.parameter import Parameter
from faar_ray.tune.space.sections import SchedulerConfig

RHO = Parameter(min=0.5, max=0.99, scale="log1m")
LR = Parameter(min=1e-4, max=1e-2, log=True)
BETA = Parameter(min=0.5, max=0.9)
LISTED = Parameter(values=(0.8, 0.9, 0.95))


def chosen(values: dict[int, float], *, quantile: float = 0.25, room: int = 99, seed: int = 0) -> list[Exploit]:
    params = {number: {"pdrs.rho_shared": 0.6 + 0.01 * number} for number in values}
    return copies(values, params, {"pdrs.rho_shared": RHO}, quantile=quantile, seed=seed, first=len(values), room=room)


@pytest.mark.parametrize(
    ("first", "interval", "epochs", "expected"),
    [(2, 1, 5, [2, 3, 4]), (1, 2, 6, [1, 3, 5]), (4, 4, 8, [4]), (3, 1, 3, []), (2, 9, 8, [2])],
)
def test_boundaries_lie_before_the_last_epoch(first: int, interval: int, epochs: int, expected: list[int]) -> None:
    config = SchedulerConfig(type="pbt", min_epochs=first, interval=interval)
    assert list(boundaries(config, epochs)) == expected


@pytest.mark.parametrize(
    ("members", "quantile", "expected"),
    [(8, 0.25, 2), (8, 0.26, 3), (5, 0.25, 2), (3, 0.5, 1), (3, 0.25, 1), (2, 0.5, 1), (2, 0.1, 1), (1, 0.5, 0)],
)
def test_nobody_is_among_the_worst_and_the_best(members: int, quantile: float, expected: int) -> None:
    assert quantile_size(members, quantile) == expected
    assert 2 * expected <= members


def test_the_worst_are_replaced_by_copies_of_the_best() -> None:
    values = {0: 5.0, 1: -3.0, 2: 9.0, 3: 0.0, 4: 1.0, 5: 8.0, 6: -1.0, 7: 2.0}
    found = chosen(values)
    assert [(copy.replaced, copy.child) for copy in found] == [(1, 8), (6, 9)]
    assert {copy.parent for copy in found} <= {2, 5}
    parents = {copy.parent for seed in range(20) for copy in chosen(values, seed=seed)}
    assert parents == {2, 5}


def test_a_metric_that_is_no_number_is_the_worst_and_of_equals_the_later_trial() -> None:
    assert [copy.replaced for copy in chosen({0: math.nan, 1: -50.0, 2: 1.0, 3: 1.0}, quantile=0.5)] == [0, 1]
    assert [copy.replaced for copy in chosen({0: 1.0, 1: 1.0, 2: 1.0, 3: 1.0}, quantile=0.5)] == [3, 2]


def test_what_the_budget_has_left_goes_to_the_places_of_the_worst() -> None:
    values = {0: 5.0, 1: -3.0, 2: 9.0, 3: 0.0}
    assert [copy.replaced for copy in chosen(values, quantile=0.5, room=1)] == [1]
    assert chosen(values, room=0) == []
    assert chosen({0: 5.0}) == []


def test_a_decision_is_a_function_of_the_seed_and_the_trials_numbers() -> None:
    values = {0: 5.0, 1: -3.0, 2: 9.0, 3: 0.0}
    assert chosen(values) == chosen(dict(reversed(values.items())))
    assert chosen(values) != chosen(values, seed=1)


class Fixed(random.Random):
    """Never resamples, and always moves by one factor."""

    def __init__(self, factor: float) -> None:
        super().__init__(0)
        self.factor = factor

    def random(self) -> float:
        return RESAMPLED

    def choice(self, seq: object) -> float:  # type: ignore[override]
        assert seq == FACTORS
        return self.factor


@pytest.mark.parametrize(
    ("parameter", "value", "factor", "expected"),
    [
        (LR, 1e-3, 1.2, 1.2e-3),
        (LR, 1e-3, 0.8, 0.8e-3),
        (LR, 9e-3, 1.2, 1e-2),
        (BETA, 0.6, 0.8, 0.5),
        (RHO, 0.9, 1.2, 0.88),  # 1 - x moves: 0.1 -> 0.12
        (RHO, 0.9, 0.8, 0.92),
        (RHO, 0.989, 0.8, 0.99),
        (LISTED, 0.9, 1.2, 0.95),
        (LISTED, 0.9, 0.8, 0.8),
        (LISTED, 0.8, 0.8, 0.9),
        (LISTED, 0.95, 1.2, 0.9),
        (Parameter(values=(0.8,)), 0.8, 1.2, 0.8),
    ],
)
def test_a_step_is_a_fifth_within_the_bounds_and_of_a_list_the_next(
    parameter: Parameter, value: float, factor: float, expected: float
) -> None:
    assert explored({"k": value}, {"k": parameter}, Fixed(factor)) == {"k": pytest.approx(expected, rel=1e-9)}


def test_a_quarter_is_resampled_over_the_whole_range() -> None:
    draws = random.Random(3)
    found = [float(explored({"k": 1e-3}, {"k": LR}, draws)["k"]) for _ in range(2000)]
    stepped = [x for x in found if min(abs(x - 1.2e-3), abs(x - 0.8e-3)) < 1e-12]
    resampled = sorted(set(found) - set(stepped))
    assert 0.2 < len(resampled) / len(found) < 0.3
    assert all(1e-4 <= x <= 1e-2 for x in found)
    assert sum(x < 1e-3 for x in resampled) / len(resampled) == pytest.approx(0.5, abs=0.1)  # the middle of the log


@pytest.mark.parametrize("parameter", [RHO, LR, BETA, LISTED])
def test_nobody_gets_values_that_were_had_before(parameter: Parameter) -> None:
    value: Callable[[int], float] = lambda seed: float(  # noqa: E731
        explored({"k": 0.9 if parameter is not LR else 1e-2}, {"k": parameter}, random.Random(seed))["k"]
    )
    assert all(value(seed) != (0.9 if parameter is not LR else 1e-2) for seed in range(50))


def test_heirs_of_one_generation_differ_from_each_other_and_from_all_before() -> None:
    params = {number: {"k": LISTED.values[number % 3]} for number in range(4) if LISTED.values}
    values = {0: 4.0, 1: 1.0, 2: 1.0, 3: 3.0}
    parameters = {"k": Parameter(values=(0.8, 0.9, 0.95, 0.97, 0.98))}
    found = copies(
        values, params, parameters, quantile=0.5, seed=0, first=4, room=9, had=[dict(p) for p in params.values()]
    )
    assert sorted(float(copy.params["k"]) for copy in found) == [0.97, 0.98]
