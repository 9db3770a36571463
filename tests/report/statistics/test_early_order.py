"""How well early order told the end: against plain Spearman, over all and within seeds, and in words."""

from __future__ import annotations

import math
from pathlib import Path

import pyarrow.parquet as pq
import pytest
from scipy import stats

from faar_ray.bench.replay.recorded import EPOCHS
from faar_ray.records import Role, State, TrialResult
from faar_ray.report.history import MetricCurve
from faar_ray.report.plots.early_plot import plot_early_order
from faar_ray.report.statistics.early_order import EarlyOrder, early_order
from faar_ray.report.words.early_words import early_sentences

Trials = tuple[list[TrialResult], dict[str, MetricCurve]]


def trials(*curves: list[float], seeds: int = 1, state: State = "COMPLETE", role: Role = "trial") -> Trials:
    """Trials in turn on so many seeds."""
    results, of = [], {}
    for number, curve in enumerate(curves):
        name = f"t{number:03d}"
        results.append(TrialResult(name, name, number % seeds, role, state, {}, {}, 1.0, len(curve)))
        of[name] = list(enumerate(curve))
    return results, of


def found(given: Trials) -> EarlyOrder:
    order = early_order(*given, "delta_m")
    assert order is not None
    return order


RISING = [[float(v), float(-v), float(v), float(v)] for v in range(6)]


def test_the_order_after_each_epoch_is_correlated_with_the_last() -> None:
    order = found(trials(*RISING))
    assert [(of.finished, of.overall) for of in order.orders] == [(1, 1.0), (2, -1.0), (3, 1.0)]
    assert (order.trials, order.seeds, order.epochs, order.is_paired) == (6, 1, 4, False)


def test_within_a_seed_the_seeds_own_level_does_not_count() -> None:
    """Early, seeds differ by far more than trials; within each seed the order is the final one."""
    finals = [0.0, 0.5, 1.0, 1.5, 2.0, 2.5]
    curves = [[100.0 * (number % 2) * -1 + final, final] for number, final in enumerate(finals)]
    (of,) = found(trials(*curves, seeds=2)).orders
    early, final = zip(*curves, strict=True)
    assert of.overall == pytest.approx(stats.spearmanr(early, final).statistic)
    assert of.overall < 0.5
    assert of.within == pytest.approx(1.0)


def test_only_complete_trials_of_the_search_with_as_many_epochs_count() -> None:
    results, curves = trials(*RISING, [0.0, 0.0, 9.0], [math.nan] * 4)
    stopped, more = trials(*RISING, state="PRUNED")
    controls, most = trials(*RISING, role="control")
    renamed = [TrialResult(f"x{i}", "x", 0, r.role, r.state, {}, {}, 1.0, 4) for i, r in enumerate(stopped + controls)]
    curves |= {f"x{i}": curve for i, curve in enumerate([*more.values(), *most.values()])}
    assert found((results + renamed, curves)).trials == 6


def test_too_few_trials_are_said_to_be_too_few() -> None:
    assert list(early_sentences(found(trials(*RISING[:4])))) == [
        "Not enough trials to tell: 4 complete trials, at least 5 are needed."
    ]
    assert early_order([], {}, "delta_m") is None
    assert early_order(*trials([1.0], [2.0]), "delta_m") is None


def test_words_say_from_which_epoch_on_the_order_was_the_final_one() -> None:
    first, second = early_sentences(found(trials(*RISING)))
    assert first == (
        "Rank correlation of delta_m with its final value, 6 complete trials of 4 epochs: 1.00 after epoch 1, 1.00 "
        "after epoch 3."
    )
    assert second.startswith("From epoch 3 on it is at least 0.9")
    *_, last = early_sentences(found(trials(*[[v, -v, v] for v in map(float, range(6))])))
    assert last == "Before the last epoch it never stays at 0.9 or more: early stopping would have guessed."


def test_equal_values_have_no_order() -> None:
    order = found(trials(*[[1.0, float(v)] for v in range(6)]))
    assert math.isnan(order.orders[0].overall)
    assert "unknown after epoch 1" in next(early_sentences(order))


def test_recorded_trials_of_rho_stand_in_reverse_while_they_are_masked(tmp_path: Path) -> None:
    rows = pq.read_table(EPOCHS, columns=["rho", "seed", "epoch", "delta_m"]).to_pylist()
    curves: dict[str, MetricCurve] = {}
    for row in sorted(rows, key=lambda row: row["epoch"]):
        curves.setdefault(f"{row['rho']:.2f}-s{row['seed']}", []).append((row["epoch"], row["delta_m"]))
    results = [TrialResult(name, name[:4], int(name[-1]), "trial", "COMPLETE", {}, {}, 1.0, 6) for name in curves]
    order = found((results, curves))
    assert order.orders[1].overall < -0.9 and order.orders[1].within < -0.9
    assert order.orders[4].within > 0.9
    assert order.critical == pytest.approx(0.707, abs=1e-3)  # the table's value for eight
    assert plot_early_order(order, tmp_path / "order.png")
    assert (tmp_path / "order.png").stat().st_size > 5000
    assert not plot_early_order(found(trials(*RISING[:4])), tmp_path / "none.png")
