from __future__ import annotations

import math
from pathlib import Path

import pytest
from PIL import Image

from faar_ray.bench.stock.compare import OURS, STOCK, Ended, Run, compared, curves, interval
from faar_ray.bench.stock.plot import plot_curves

SIGNS = (-1.0, 1.0)  # delta_m is maximised, a count minimised


def ours(seed: int = 0) -> Run:
    """Finished at (0, 100), stopped at (9, 10), finished at (10, 0): the last is the ideal point."""
    ended = [Ended(6, True, (0.0, 100.0)), Ended(2, False, (9.0, 10.0)), Ended(6, True, (10.0, 0.0))]
    return Run(OURS, seed, ended)


def stock(seed: int = 0) -> Run:
    """Finished at (0, 100) only, and spent more."""
    return Run(
        STOCK, seed, [Ended(6, True, (0.0, 100.0)), Ended(4, False, (5.0, 50.0)), Ended(8, False, (9.0, 1.0))], 2
    )


def test_only_finished_trials_enter_a_front_unless_asked() -> None:
    box = 11 * 110  # from the ideal point (10, 0) to the worst moved out by a tenth of the range, (-1, 110)

    own, other = curves([ours(), stock()], SIGNS)
    assert own.epochs == (0, 6, 8, 14) and other.epochs == (0, 6, 10, 18)
    assert own.found == pytest.approx((0, 1 * 10 / box, 1 * 10 / box, 1))
    assert other.found == pytest.approx((0, 10 / box, 10 / box, 10 / box))

    own, other = curves([ours(), stock()], SIGNS, finished=False)
    assert own.found[2] == pytest.approx(10 * 100 / box)
    assert other.found[2:] == pytest.approx((6 * 60 / box, 10 * 109 / box))


def test_a_curve_holds_what_was_found_by_then() -> None:
    own, _ = curves([ours(), stock()], SIGNS)

    assert [own.at(epochs) for epochs in (0, 5, 6, 13, 14, 99)] == [own.found[i] for i in (0, 0, 1, 2, 3, 3)]


def test_both_are_compared_after_the_epochs_that_every_search_spent() -> None:
    runs = [ours(0), stock(0), ours(1), stock(1)]

    found = compared(runs, SIGNS)

    assert (found["epochs"], found["seeds"]) == (14, 2)
    assert [row["epochs"] for row in found["rows"]] == [4, 7, 10, 14]
    assert found["rows"][-1][OURS] == (1.0, 0.0)
    assert found["rows"][-1]["difference"][0] == pytest.approx(1 - 10 / 1210)
    assert [row["told_complete_but_stopped"] for row in found["searches"]] == [0, 2, 0, 2]
    assert [row["finished"] for row in found["searches"]] == [2, 1, 2, 1]


def test_the_interval_is_students() -> None:
    mean, half = interval([1.0, 2.0, 3.0])

    assert mean == 2.0
    assert half == pytest.approx(4.302653 * 1.0 / math.sqrt(3))  # t at 0.975 with 2 degrees of freedom
    assert interval([5.0]) == (5.0, math.inf)


def test_the_plot_is_drawn_for_one_seed_and_for_several(tmp_path: Path) -> None:
    for runs in ([ours(), stock()], [ours(0), stock(0), ours(1), stock(1)]):
        plot_curves(curves(runs, SIGNS), 14, tmp_path / "p.png")
        with Image.open(tmp_path / "p.png") as image:
            assert image.size == (1152, 576)
