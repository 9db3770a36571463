from __future__ import annotations

import json
from pathlib import Path

import pytest

from faar_ray.objectives.constraint import Constraint
from faar_ray.objectives.metrics import Objective
from faar_ray.records import State, TrialResult
from faar_ray.report.statistics.over_time import over_time, over_time_caption, write_over_time

UP, DOWN = Objective(name="delta_m", goal="maximize"), Objective(name="trainable_params", goal="minimize")
SMALL = Constraint(metric="trainable_params", sign="<=", limit=100)


def trial(number: int, delta_m: float, size: float, state: State = "COMPLETE", epochs: int = 6) -> TrialResult:
    metrics = {"delta_m": delta_m, "trainable_params": size}
    return TrialResult(f"t{number}", f"c{number}", 0, "trial", state, {}, metrics, 1.0, epochs)


TRIALS = [trial(0, 0, 100), trial(1, 5, 50, "PRUNED", 2), trial(2, 10, 90), trial(3, 20, 400), trial(4, 5, 0)]


def test_only_feasible_finished_trials_move_it_and_all_spend_epochs() -> None:
    traced = over_time(TRIALS, [UP, DOWN], [SMALL], {})

    assert traced is not None
    assert (traced.reference, traced.ideal) == ((-1.0, 110.0), (10.0, 0.0))
    result = [step.found for step in traced.steps]
    assert result == pytest.approx([10, 10, 11 * 20, 11 * 20, 11 * 20 + 6 * 90])
    assert [step.epochs for step in traced.steps] == [6, 8, 14, 20, 26]
    assert traced.box == pytest.approx(11 * 110)
    assert "Reference point: delta_m -1, trainable_params 110" in over_time_caption(traced)


def test_trials_count_in_the_order_in_which_they_ended() -> None:
    traced = over_time(TRIALS, [UP], [SMALL], {"t4": 0, "t3": 1, "t2": 2, "t1": 3, "t0": 4})

    assert traced is not None
    assert [(step.trial_id, step.found) for step in traced.steps] == [
        ("t4", 5), ("t3", 5), ("t2", 10), ("t1", 10), ("t0", 10),
    ]  # fmt: skip
    assert traced.reference == ()


def test_nothing_is_traced_where_nothing_feasible_finished() -> None:
    assert over_time([TRIALS[1], TRIALS[3]], [UP, DOWN], [SMALL], {}) is None


def test_the_numbers_are_written_beside_the_plot(tmp_path: Path) -> None:
    traced = over_time(TRIALS, [UP, DOWN], [SMALL], {})
    assert traced is not None

    write_over_time(tmp_path / "x.json", traced)

    facts = json.loads((tmp_path / "x.json").read_text())
    assert facts["reference_point"] == [-1.0, 110.0]
    assert [step["feasible"] for step in facts["steps"]] == [True, True, True, False, True]
