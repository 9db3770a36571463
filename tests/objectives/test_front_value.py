"""The one value of a trial's points."""

from __future__ import annotations

import pytest

from faar_ray.objectives.constraint import Constraint
from faar_ray.objectives.front_value import best_point, front_volume, reference_of
from faar_ray.objectives.metrics import Objective

UP, DOWN = Objective(name="q", goal="maximize"), Objective(name="n", goal="minimize")
POINTS = [{"q": 1.0, "n": 10.0}, {"q": 3.0, "n": 30.0}]
LIMIT, TIGHT = (Constraint(metric="n", sign="<=", limit=limit) for limit in (20.0, 5.0))


def test_the_volume_is_in_the_product_of_the_units_and_of_feasible_points_alone() -> None:
    reference = {"q": 0.0, "n": 40.0}
    assert front_volume(POINTS, [UP, DOWN], [], reference) == 1 * 30 + 2 * 10
    assert front_volume(POINTS, [UP, DOWN], [LIMIT], reference) == 1 * 30
    assert front_volume([{"q": 1.0}], [UP, DOWN], [], reference) == 0


def test_a_reference_point_lies_half_the_range_beyond_the_worst() -> None:
    assert reference_of(POINTS, [UP, DOWN]) == {"q": 0.0, "n": 40.0}


def test_a_reference_point_of_one_point_lies_half_its_size_beyond_it() -> None:
    assert reference_of(POINTS[:1], [UP, DOWN]) == {"q": 0.5, "n": 15.0}
    assert reference_of([{"q": 0.0, "n": 2.0}], [UP, DOWN]) == {"q": -0.5, "n": 3.0}
    assert reference_of([{"q": 1.0}], [UP, DOWN]) is None


@pytest.mark.parametrize(("limits", "n"), [([], 30.0), ([LIMIT], 10.0), ([TIGHT], 10.0)])
def test_the_best_point_is_feasible_or_the_least_outside(limits: list[Constraint], n: float) -> None:
    best = best_point(POINTS, UP, limits)
    assert best is not None and best["n"] == n
