"""Which configurations lead."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from faar_ray.objectives.metrics import Objective
from faar_ray.records import TrialResult
from faar_ray.tune.propose.replicates import leading

QUALITY = Objective(name="delta_m", goal="maximize")
COST = Objective(name="trainable_params", goal="minimize")


def result(name: str, delta_m: float, params: float = 0.0) -> TrialResult:
    metrics = {"delta_m": delta_m, "trainable_params": params}
    return TrialResult(name, name, 0, "trial", "COMPLETE", {}, metrics, 1.0, 3)


def names(results: list[TrialResult]) -> list[str]:
    return [one.trial_id for one in results]


def test_with_one_objective_the_best_values_lead() -> None:
    trials = [result("a", 1.0), result("b", 3.0), result("c", 2.0)]
    assert names(leading(trials, [QUALITY], 2)) == ["b", "c"]


def test_the_front_leads_before_what_it_dominates() -> None:
    trials = [result("dominated", 1.0, 50), result("good", 3.0, 40), result("cheap", 0.0, 10)]
    assert names(leading(trials, [QUALITY, COST], 2)) == ["good", "cheap"]
    assert names(leading(trials, [QUALITY, COST], 3)) == ["good", "cheap", "dominated"]


def test_a_long_front_is_cut_to_its_ends_and_its_middle() -> None:
    trials = [result(str(x), x, x * x) for x in range(11)]
    assert set(names(leading(trials, [QUALITY, COST], 2))) == {"10", "0"}
    assert 5 <= int(names(leading(trials, [QUALITY, COST], 3))[2]) <= 8


def test_fewer_than_asked_for_come_back_when_fewer_finished() -> None:
    assert names(leading([result("a", 1.0)], [QUALITY, COST], 3)) == ["a"]
    assert leading([], [QUALITY], 3) == []


points = st.lists(st.tuples(st.integers(0, 5), st.integers(0, 5)), min_size=1, max_size=12)


@given(points, st.integers(1, 12))
def test_nobody_leads_while_somebody_who_dominates_him_does_not(pairs: list[tuple[int, int]], top: int) -> None:
    trials = [result(str(i), q, c) for i, (q, c) in enumerate(pairs)]
    chosen = leading(trials, [QUALITY, COST], top)
    assert len(chosen) == len(set(names(chosen))) == min(top, len(trials))
    left = [trial for trial in trials if trial not in chosen]
    assert not any(dominates(out, one) for out in left for one in chosen)


def dominates(first: TrialResult, second: TrialResult) -> bool:
    gain = first.metrics["delta_m"] - second.metrics["delta_m"]
    saving = second.metrics["trainable_params"] - first.metrics["trainable_params"]
    return gain >= 0 and saving >= 0 and gain + saving > 0
