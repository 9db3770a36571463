from __future__ import annotations

import itertools

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from optuna._hypervolume import compute_hypervolume

from faar_ray.objectives.pareto import hypervolume, non_dominated

ONE = {1: [[0.2], [0.5]], 2: [[0.0, 1.0], [1.0, 0.0]], 3: [[0.0, 0.0, 0.0]]}


@pytest.mark.parametrize(("objectives", "volume"), [(1, 1.8), (2, 3.0), (3, 8.0)])
def test_boxes_that_can_be_counted_by_hand(objectives: int, volume: float) -> None:
    assert hypervolume(np.array(ONE[objectives]), np.full(objectives, 2.0)) == pytest.approx(volume)


@settings(max_examples=60, deadline=None)
@given(st.integers(1, 4).flatmap(lambda d: st.lists(st.lists(st.integers(0, 5), min_size=d, max_size=d), min_size=1,
                                                    max_size=7)))  # fmt: skip
def test_it_is_the_number_of_unit_cells_that_are_dominated(points: list[list[int]]) -> None:
    losses, reference = np.array(points, float), np.full(len(points[0]), 5.0)
    cells = itertools.product(range(5), repeat=len(points[0]))

    dominated = sum(any(all(p <= c for p, c in zip(point, cell, strict=True)) for point in points) for cell in cells)

    assert hypervolume(losses, reference) == pytest.approx(dominated)
    if (losses <= reference).all():
        assert hypervolume(losses, reference) == pytest.approx(compute_hypervolume(losses, reference))


def test_what_is_dominated_or_repeated_is_left_out() -> None:
    points = np.array([[1.0, 2.0], [2.0, 1.0], [2.0, 2.0], [1.0, 2.0]])

    assert non_dominated(points).tolist() == [[1.0, 2.0], [2.0, 1.0]]
