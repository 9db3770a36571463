"""Rules of early stopping."""

from __future__ import annotations

import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from faar_ray.objectives.metrics import Goal
from faar_ray.tune.propose.comparison import StoppingRule
from faar_ray.tune.propose.stopping_rules import (
    Hyperband,
    MedianStopping,
    SuccessiveHalving,
    rungs,
    survives,
    survives_by_front,
)
from faar_ray.tune.space.sections import SchedulerConfig

QUALITY: dict[str, Goal] = {"delta_m": "maximize"}
FRONT: dict[str, Goal] = {"delta_m": "maximize", "trainable_params": "minimize"}
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
    assert survives(-5.0, [], 3)


def test_last_of_three_at_reduction_three_stops() -> None:
    assert not survives(1.0, [2.0, 3.0], 3)
    assert survives(4.0, [2.0, 3.0], 3)


def test_nan_never_goes_on() -> None:
    assert not survives(math.nan, [], 2)


@given(values, st.floats(-100, 100), st.integers(2, 5))
def test_whoever_is_best_so_far_goes_on(others: list[float], value: float, reduction: int) -> None:
    assert survives(max([*others, value]), others, reduction)


@given(values, st.floats(-100, 100), st.floats(0, 50), st.integers(2, 5))
def test_a_better_value_never_stops_where_a_worse_goes_on(
    others: list[float], value: float, more: float, reduction: int
) -> None:
    assert survives(value + more, others, reduction) or not survives(value, others, reduction)


def test_a_smaller_loss_is_better_where_the_goal_says_so() -> None:
    config = SchedulerConfig(metric="train/loss", min_epochs=1, reduction=2)
    halving = SuccessiveHalving(config, {"train/loss": "minimize"})
    halving.record(0, 1, [1.0])
    halving.record(1, 1, [2.0])
    assert halving.stop_reason(0, 1, 4) == ""
    assert halving.stop_reason(1, 1, 4) == "train/loss 2 after 1 epochs, best there 1 of 2 trials"


def test_between_rungs_and_without_a_scheduler_nobody_stops() -> None:
    for rule in (
        SuccessiveHalving(SchedulerConfig(min_epochs=2, reduction=2), QUALITY),
        StoppingRule(SchedulerConfig(), QUALITY),
    ):
        rule.record(0, 1, [5.0])
        rule.record(1, 1, [1.0])
        assert rule.stop_reason(1, 1, 8) == ""


def test_a_replayed_epoch_does_not_change_what_the_rung_holds() -> None:
    halving = SuccessiveHalving(SchedulerConfig(min_epochs=1, reduction=2), QUALITY)
    halving.record(0, 1, [5.0])
    halving.record(0, 1, [-5.0])
    halving.record(1, 1, [1.0])
    assert halving.stop_reason(0, 1, 4) == ""
    assert halving.stop_reason(1, 1, 4)


def judged(rule: StoppingRule, curves: list[list[float]], epochs: int) -> list[int]:
    """Epochs after which each trial was stopped, 0 for none; one trial after another."""
    stopped = []
    for number, curve in enumerate(curves):
        for finished, value in enumerate(curve, 1):
            rule.record(number, finished, [value])
            if rule.stop_reason(number, finished, epochs):
                break
        stopped.append(finished if finished < len(curve) else 0)
    return stopped


def test_hyperband_compares_within_brackets_that_a_seed_and_number_decide() -> None:
    config = SchedulerConfig(type="hyperband", min_epochs=1, reduction=3)
    rule = Hyperband(config, QUALITY, seed=7, epochs=9)
    first = [rule._first_rung(number) for number in range(600)]
    assert first == [Hyperband(config, QUALITY, seed=7, epochs=9)._first_rung(number) for number in range(600)]
    assert first != [Hyperband(config, QUALITY, seed=8, epochs=9)._first_rung(number) for number in range(600)]
    assert [first.count(rung) for rung in (1, 3, 9)] == pytest.approx([600 * n / 17 for n in (9, 5, 3)], rel=0.2)
    curves = [[float(-number)] * 9 for number in range(40)]  # ever worse
    ends = judged(rule, curves, 9)
    for rung in (1, 3):
        ended = [end for end, task_own in zip(ends, first, strict=False) if task_own == rung]
        assert ended[:2] == [0, 0]
        assert set(ended[2:]) == {rung}
    assert {end for end, own in zip(ends, first, strict=False) if own == 9} == {0}


def test_hyperband_without_room_for_a_second_bracket_is_asha() -> None:
    config = SchedulerConfig(type="hyperband", min_epochs=2, reduction=3)
    curves = [[math.sin(17 * number + epoch) for epoch in range(5)] for number in range(30)]
    ends = judged(Hyperband(config, QUALITY, epochs=5), curves, 5)
    assert ends == judged(SuccessiveHalving(config, QUALITY), curves, 5)
    assert 0 < ends.count(2) < 30


def test_median_stops_whose_best_is_below_the_median_of_the_running_means() -> None:
    rule = MedianStopping(SchedulerConfig(type="median", min_epochs=2), QUALITY)
    three = [[0.0, 2.0, 9.0], [2.0, 4.0, 9.0], [4.0, 6.0, 9.0]]  # means after two epochs: 1, 3, 5
    assert judged(rule, three, 3) == [0, 0, 0]
    for epoch, value in enumerate([2.9, -1.0], 1):
        rule.record(3, epoch, [value])
    assert rule.stop_reason(3, 1, 3) == ""
    assert rule.stop_reason(3, 2, 3) == "best delta_m 2.9 after 2 epochs, median of 3 trials' means 3"


def test_median_takes_the_means_of_the_epochs_that_have_a_value() -> None:
    rule = MedianStopping(SchedulerConfig(type="median", min_epochs=2), QUALITY)
    for number, curve in enumerate([[math.nan, 3.0], [2.0, 4.0], [4.0, 6.0], [math.nan, math.nan], [math.nan, 9.0]]):
        for epoch, value in enumerate(curve, 1):
            rule.record(number, epoch, [value])
    assert rule.stop_reason(0, 2, 3) == "best delta_m 3 after 2 epochs, median of 3 trials' means 5"
    assert rule.stop_reason(3, 2, 3) == "best delta_m nan after 2 epochs, median of 4 trials' means 4"
    assert rule.stop_reason(4, 2, 3) == ""


def test_what_a_rule_compares_is_a_number_or_nan() -> None:
    rule = StoppingRule(SchedulerConfig(type="none"), FRONT)
    metrics = {"delta_m": math.inf, "other": 1.0}
    assert [math.isnan(value) for value in rule.select_metrics(metrics)] == [True, True]


@given(st.lists(st.lists(st.floats(-9, 9), min_size=3, max_size=3), min_size=1, max_size=9), st.integers(1, 3))
def test_median_is_vizier_s_rule_by_the_book(curves: list[list[float]], finished: int) -> None:
    rule = MedianStopping(SchedulerConfig(type="median", min_epochs=1), {"x": "minimize"})
    for number, curve in enumerate(curves):
        for epoch, value in enumerate(curve, 1):
            rule.record(number, epoch, [value])
    means = [math.fsum(curve[:finished]) / finished for curve in curves[1:]]
    stops = len(means) >= 3 and min(curves[0][:finished]) > np.median(means) + 1e-9
    near = means and abs(min(curves[0][:finished]) - np.median(means)) < 1e-9
    assert near or bool(rule.stop_reason(0, finished, 9)) == stops


points = st.lists(st.tuples(st.integers(0, 6), st.integers(0, 6)), min_size=1, max_size=14)


@given(points, st.integers(2, 4))
def test_an_end_of_the_front_always_goes_on_and_fewer_stand_before_it_than_dominate_what_stops(
    pairs: list[tuple[int, int]], reduction: int
) -> None:
    values, others = pairs[0], pairs[1:]
    if any(values[side] > max((other[side] for other in others), default=-1) for side in (0, 1)):
        assert survives_by_front(values, others, reduction)
    beaten_by = sum(
        1 for other in others if other != values and all(o >= v for o, v in zip(other, values, strict=True))
    )
    keep = math.ceil(len(pairs) / reduction)
    if len(pairs) >= reduction and beaten_by >= keep:
        assert not survives_by_front(values, others, reduction)


def test_what_is_not_finite_never_goes_on_and_stands_before_nobody() -> None:
    assert not survives_by_front([math.nan, 1.0], [], 2)
    assert not survives_by_front([math.inf, 1.0], [], 2)
    halving = SuccessiveHalving(SchedulerConfig(metric="front", min_epochs=1, reduction=2), FRONT)
    halving.record(0, 1, [math.nan, 1.0])
    halving.record(1, 1, [1.0, 1.0])
    assert halving.stop_reason(1, 1, 4) == ""


def test_the_cheap_side_of_a_front_is_stopped_by_delta_m_alone_and_not_by_the_front() -> None:
    """Ranks shrink: counts are those at the rung, after two epochs, in both rules."""
    sizes = [4e5, 3e5, 2e5, 1e5, 5e4, 3.5e5]
    quality = [0.0, -0.5, -1.5, -3.0, -6.0, -4.0]  # the last is dominated

    def stopped(rule: StoppingRule, columns: list[list[float]]) -> list[int]:
        for number, values in enumerate(zip(*columns, strict=True)):
            rule.record(number, 2, values)
        return [number for number in range(len(sizes)) if rule.stop_reason(number, 2, 6)]

    config = SchedulerConfig(metric="front", min_epochs=2, reduction=2)
    assert stopped(SuccessiveHalving(config, QUALITY), [quality]) == [3, 4, 5]
    halving = SuccessiveHalving(config, FRONT)
    out = stopped(halving, [quality, sizes])
    assert {0, 4}.isdisjoint(out)
    assert 5 in out
    assert halving.stop_reason(5, 2, 6).startswith(
        "delta_m -4, trainable_params 3.5e+05 after 2 epochs, too far behind"
    )
