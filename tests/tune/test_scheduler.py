"""Asynchronous successive halving."""

from __future__ import annotations

import math

import pytest
from hypothesis import given
from hypothesis import strategies as st

from faar_ray.tune.scheduler import Halving, goes_on, rungs
from faar_ray.tune.space_sections import SchedulerConfig

values = st.lists(st.floats(-100, 100), max_size=20)


@pytest.mark.parametrize(
    ("min_epochs", "reduction", "epochs", "expected"),
    [(2, 3, 8, (2, 6)), (1, 2, 8, (1, 2, 4)), (2, 3, 6, (2,)), (4, 2, 4, ()), (1, 3, 1, ())],
)
def test_rungs_are_powers_of_the_reduction_below_the_last_epoch(
    min_epochs: int, reduction: int, epochs: int, expected: tuple[int, ...]
) -> None:
    assert rungs(min_epochs, reduction, epochs) == expected


def test_first_at_a_rung_goes_on() -> None:
    assert goes_on(-5.0, [], 3)


def test_last_of_three_at_reduction_three_stops() -> None:
    assert not goes_on(1.0, [2.0, 3.0], 3)
    assert goes_on(4.0, [2.0, 3.0], 3)


def test_nan_never_goes_on() -> None:
    assert not goes_on(math.nan, [], 2)


@given(values, st.floats(-100, 100), st.integers(2, 5))
def test_whoever_is_best_so_far_goes_on(others: list[float], value: float, reduction: int) -> None:
    assert goes_on(max([*others, value]), others, reduction)


@given(values, st.floats(-100, 100), st.floats(0, 50), st.integers(2, 5))
def test_a_better_value_never_stops_where_a_worse_goes_on(
    others: list[float], value: float, more: float, reduction: int
) -> None:
    assert goes_on(value + more, others, reduction) or not goes_on(value, others, reduction)


def test_a_smaller_loss_is_better_where_the_goal_says_so() -> None:
    halving = Halving(SchedulerConfig(metric="train/loss", min_epochs=1, reduction=2), "minimize")
    halving.record("a", 1, 1.0)
    halving.record("b", 1, 2.0)
    assert halving.verdict("a", 1, 4) == ""
    assert "train/loss 2 after 1 epochs" in halving.verdict("b", 1, 4)


def test_between_rungs_and_without_a_scheduler_nobody_stops() -> None:
    for config in (SchedulerConfig(min_epochs=2, reduction=2), SchedulerConfig(type="none", min_epochs=1)):
        halving = Halving(config, "maximize")
        halving.record("a", 1, 5.0)
        halving.record("b", 1, 1.0)
        assert halving.verdict("b", 1, 8) == ""


def test_a_replayed_epoch_does_not_change_what_the_rung_holds() -> None:
    halving = Halving(SchedulerConfig(min_epochs=1, reduction=2), "maximize")
    halving.record("a", 1, 5.0)
    halving.record("a", 1, -5.0)
    halving.record("b", 1, 1.0)
    assert halving.verdict("a", 1, 4) == ""
    assert halving.verdict("b", 1, 4)
