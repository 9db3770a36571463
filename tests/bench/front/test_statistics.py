"""Sizes, orders and hypervolumes of the studies against numbers worked out by hand or in another way."""

from __future__ import annotations

import itertools
import math
from typing import Any

import numpy as np
import pytest
from scipy import stats

from faar_ray.bench.front.rates import best_rates, rate_of, with_rates
from faar_ray.bench.front.rows import BUDGET, CUT, RHO, Row, front_rows, rows_of
from faar_ray.bench.front.sizes import against_fixed, against_front
from faar_ray.bench.front.studies import Box
from faar_ray.bench.front.volume import best_order, curve, one_run, volume, whole_trainings
from faar_ray.records import TrialResult
from faar_ray.report.statistics.paired import at_size, paired_difference

BOX = Box(quality=(-10.0, 0.0), size=(100.0, 10.0))
SPACE = {"base": {"ranks": {"init_rank": 16}, "optim": {"epochs": 6}}}


def result(seed: int, delta_m: float, size: float, **params: Any) -> TrialResult:
    params = {key.replace("__", "."): value for key, value in params.items()}
    metrics = {"delta_m": delta_m, "test/delta_m": delta_m - 1, "params/adapters": size}
    name = repr(sorted(params.items(), key=repr))
    return TrialResult(f"{name}-s{seed}", name, seed, "trial", "COMPLETE", params, metrics, 1.0, 6)


def row(quality: float, size: float, seeds: int = 2, **params: Any) -> Row:
    results = [result(seed, quality + seed, size, **params) for seed in range(seeds)]
    return rows_of(results, SPACE)[0]


def fixed(rank: int, quality: float, size: float) -> Row:
    return row(quality, size, ranks__kind="fixed", ranks__init_rank=rank)


def spectral(quality: float, size: float, cut: int | None = None) -> Row:
    return row(quality, size, **{"ranks__kind": "spectral", BUDGET: int(size) + 1, CUT: cut})


def test_a_paired_difference_is_scipys_paired_interval_over_the_common_seeds() -> None:
    mine, other = {0: 1.0, 1: 2.5, 2: 2.0, 7: 9.0}, {0: 0.5, 1: 1.0, 2: 1.9, 3: 4.0}
    gain = paired_difference(mine, other)

    expected = stats.ttest_rel([1.0, 2.5, 2.0], [0.5, 1.0, 1.9])
    low, high = expected.confidence_interval(0.95)
    assert gain.value == pytest.approx((low + high) / 2)
    assert gain.ci95 == pytest.approx((high - low) / 2)
    assert gain.dof + 1 == 3


def test_a_curve_is_read_off_between_its_sizes_in_ratio_and_not_beyond_them() -> None:
    points = [(400.0, 4.0), (100.0, 0.0)]

    assert at_size(points, 200.0) == pytest.approx(2.0)  # half way in ratio
    assert at_size(points, 100.0) == 0.0
    assert at_size(points, 403.0) == 4.0
    assert math.isnan(at_size(points, 90.0))
    assert math.isnan(at_size([], 90.0))


def test_of_two_points_of_a_size_the_better_is_on_the_curve() -> None:
    assert at_size([(100.0, 1.0), (100.0, 3.0), (200.0, 5.0)], 100.0) == 3.0


def test_a_volume_is_the_share_of_a_grid_that_is_dominated() -> None:
    points = [(-4.0, 55.0), (-7.0, 19.0), (-8.0, 60.0), (3.0, 90.0)]
    quality, size = np.meshgrid(np.linspace(-10, 0, 401), np.linspace(10, 100, 361), indexing="ij")
    covered = np.any([(quality <= q) & (size >= s) for q, s in points], axis=0)

    assert volume(points, BOX) == pytest.approx(covered.mean(), abs=0.005)
    assert volume([(5.0, 5.0)], BOX) == pytest.approx(1.0)  # beyond the ideal point in both
    assert volume([], BOX) == 0.0


def test_the_order_of_trainings_finds_at_each_step_as_much_as_any_next_one() -> None:
    rows = [fixed(16, -1.0, 90.0), fixed(4, -3.0, 40.0), fixed(2, -6.0, 20.0)]
    steps = best_order(whole_trainings(rows), BOX, [0, 1])

    found = [np.mean([*part.values()]) for part in curve("", steps, BOX, [0, 1]).found]
    every = [
        np.mean([*curve("", order, BOX, [0, 1]).found[0].values()])
        for order in itertools.permutations(whole_trainings(rows))
    ]
    assert found[0] == max(every)
    assert found == sorted(found)
    assert curve("", steps, BOX, [0, 1]).epochs == (6, 12, 18)


def test_one_run_pays_its_trunk_once_and_of_a_fork_the_rest() -> None:
    rows = [spectral(-2.0, 20.0, cut=3), spectral(-1.5, 40.0), spectral(-1.2, 60.0), fixed(16, -1.0, 90.0)]
    traced = curve("", one_run(rows, 0.5), BOX, [0])

    assert traced.epochs == (7.0, 9.5)
    assert traced.at(6.9) == {}
    assert traced.at(9.4) == traced.found[0]


def test_the_front_forks_small_sizes_early_and_cuts_large_ones() -> None:
    trunk = fixed(16, 0.0, 100.0)
    rows = [spectral(-1.0, size, cut) for size in (15.0, 30.0, 50.0) for cut in (3, 4, None)]

    chosen = front_rows([trunk, *rows, fixed(4, 0.0, 31.0)])

    assert [(row.size, row.trained) for row in chosen] == [(15, 4), (30, 5), (50, 6), (100, 6)]


def test_a_spectral_row_is_compared_with_the_fixed_rank_whose_budget_it_fills() -> None:
    rows = [fixed(4, -3.0, 100_512.0), fixed(2, -5.0, 56_160.0), spectral(-1.0, 100_300.0), spectral(-1.0, 70_000.0)]

    (comparison,) = against_fixed(rows)

    assert comparison.against == "DoRA, fixed rank 4"
    assert comparison.gains["delta_m"].value == pytest.approx(2.0)


def test_faar_is_compared_with_the_front_at_the_size_that_it_has_on_each_seed() -> None:
    front = [spectral(0.0, 100.0), fixed(16, 2.0, 400.0)]
    faar = rows_of(
        [result(seed, 1.0, size, ranks__kind="pdrs", **{RHO: 0.5}) for seed, size in ((0, 200.0), (1, 900.0))], SPACE
    )

    (comparison,) = against_front(faar, front)

    assert comparison.gains["delta_m"].value == pytest.approx(0.0)  # seed 0: half way from 0 to 2
    assert comparison.gains["delta_m"].dof == 0  # seed 1 is larger than the whole front


def test_each_row_takes_the_learning_rate_that_was_best_for_it() -> None:
    tried = [(16, 0.001, -2.0), (16, 0.004, -1.0), (4, 0.001, -3.0), (4, 0.004, -5.0)]
    results = [
        result(9, quality, 1.0, ranks__kind="fixed", ranks__init_rank=rank, optim__lr=lr) for rank, lr, quality in tried
    ]
    rates = best_rates(results, 16)

    def rate(kind: str, **more: Any) -> float | None:
        return rate_of({"ranks.kind": kind, **more}, rates, 16)

    assert rate("fixed", **{"ranks.init_rank": 4}) == 0.001
    assert rate("fixed", **{"ranks.init_rank": 12}) == 0.004  # the nearer one's
    assert rate("spectral") == 0.004  # its trunk's
    assert rate("pdrs") is None
    assert with_rates([{"ranks.kind": "fixed", "optim.lr": 0.5}], rates, 16) == [
        {"optim.lr": 0.5, "ranks.kind": "fixed"}
    ]
