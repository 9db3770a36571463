from __future__ import annotations

import math
import re
from collections.abc import Mapping
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from faar_ray.objectives.metrics import Objective
from faar_ray.records import Role, State, TrialResult
from faar_ray.report.words.answer import Answer, build_answer, pooled_noise
from faar_ray.report.words.wording import count, plus_minus

UP, DOWN = Objective(name="delta_m", goal="maximize"), Objective(name="trainable_params", goal="minimize")
BOTH = [UP, DOWN]


def trial(
    name: str, seed: int, delta_m: float, adapters: float | None, *, role: Role = "trial", state: State = "COMPLETE",
    params: Mapping[str, Any] | None = None, **metrics: float,
) -> TrialResult:  # fmt: skip
    size = {} if adapters is None else {"params/adapters": adapters, "trainable_params": adapters + 1000}
    result = {"delta_m": delta_m, **size, **{k.replace("__", "/"): v for k, v in metrics.items()}}
    chosen = dict(params) if params is not None else {"pdrs.rho_shared": float(name)}
    return TrialResult(f"{name}-s{seed}", name, seed, role, state, chosen, result, 1.0, 6)


def search(noise: float = 0.1, seeds: int = 2) -> list[TrialResult]:
    """rho .95 and .99 alike, .8 one point below, .3 five; a seed's own effect of 2."""
    curve = {"0.3": (-5.0, 40), "0.8": (-1.0, 200), "0.95": (-0.05, 340), "0.99": (0.0, 420)}
    return [
        trial(name, s, value + 2 * s + noise * (-1) ** (s + i), 1000.0 * size)
        for i, (name, (value, size)) in enumerate(curve.items())
        for s in range(seeds)
    ]


def control(delta_m: float, adapters: float, name: str = "dora", **metrics: float) -> list[TrialResult]:
    params = {"method": name}
    return [trial(name, s, delta_m + 2 * s, adapters, role="control", params=params, **metrics) for s in (0, 1)]


def text_of(answer: Answer) -> str:
    return "\n".join(answer.sentences)


def test_a_difference_outside_the_noise_is_priced() -> None:
    result = build_answer(search(), BOTH)

    assert re.search(
        r"rho_shared 0\.8 costs 1\.\d+ ± 0\.\d+ delta_m against 0\.99 and saves 52% of the adapter", text_of(result)
    )


def test_a_difference_inside_the_noise_names_no_winner_but_the_cheaper() -> None:
    result = build_answer(search(), BOTH)

    assert "rho_shared 0.95 and 0.99 cannot be told apart" in text_of(result)
    assert "the cheaper is rho_shared 0.95, with 19% fewer adapter parameters" in text_of(result)
    assert result.sentences[0].startswith("Take rho_shared 0.95 (")
    assert (result.best, result.recommended) == ("0.99", "0.95")


def test_without_repeats_it_says_that_noise_is_unknown_and_recommends_nothing() -> None:
    result = build_answer(search(seeds=1), BOTH)

    assert "noise is unknown" in result.sentences[0]
    assert "0 degrees of freedom" in text_of(result)
    assert not re.search(r"\bTake\b|±|beats|wins", text_of(result))
    assert "Without a noise estimate" in text_of(result)


def test_noise_is_printed_with_its_degrees_of_freedom() -> None:
    result = build_answer(search(), BOTH)

    assert "(3 degrees of freedom)" in text_of(result)
    assert result.noise == pooled_noise(search())
    assert result.noise.dof == 3


def test_a_control_that_is_better_and_cheaper_wins_in_the_first_sentence() -> None:
    result = build_answer([*search(), *control(3.0, 100_000)], BOTH)

    assert result.sentences[0].startswith("Of the searched configurations take")
    assert result.sentences[0].endswith("but a control wins over it: dora.")
    assert re.search(
        r"Control dora wins over rho_shared 0\.95 by 3\.\d+ ± .* and saves 71% of the adapter", text_of(result)
    )


def test_a_control_that_cannot_be_told_apart_and_is_cheaper_wins_on_cost_only() -> None:
    result = build_answer([*search(), *control(-0.05, 100_000)], BOTH)

    assert re.search(
        r"Control dora cannot be told apart from rho_shared 0\.95 .*saves 71%.*it wins on cost", text_of(result)
    )


def test_a_control_that_is_better_and_dearer_is_said_to_be_both() -> None:
    result = build_answer([*search(), *control(3.0, 680_000)], BOTH)

    assert re.search(
        r"Control dora beats rho_shared 0\.95 by .*, but needs 100% more adapter parameters", text_of(result)
    )
    assert "wins" not in text_of(result)


def test_a_control_that_is_worse_loses() -> None:
    assert "Control dora is worse than rho_shared 0.95 by" in text_of(
        build_answer([*search(), *control(-9.0, 680_000)], BOTH)
    )


def test_full_fine_tuning_does_not_win_for_having_no_adapters() -> None:
    rows = [trial("full_ft", s, 2.0 * s, 0.0, role="control", params={"method": "full_ft"}) for s in (0, 1)]
    for row in rows:
        row.metrics["trainable_params"] = 3.4e6

    result = text_of(build_answer([*search(), *rows], BOTH))

    assert re.search(r"Control full_ft .*needs \d+% more trainable parameters", result)
    assert "wins" not in result


def test_a_searched_configuration_without_adapters_is_priced_by_all_that_trains() -> None:
    rows = [trial("1.0", s, -0.1 + 2 * s, 0.0) for s in (0, 1)]
    for row in rows:
        row.metrics["trainable_params"] = 3.4e6

    result = build_answer([*search(), *rows], BOTH)

    assert result.cost_name == "trainable_params"
    assert result.recommended == "0.95"


def test_of_two_that_cost_the_same_but_for_a_trifle_the_better_is_recommended() -> None:
    rows = [trial(n, s, v + 2 * s + 0.05 * (-1) ** s * i, a) for i, (n, v, a) in enumerate(ALIKE) for s in range(3)]

    assert build_answer(rows, BOTH).recommended == "0.9"


ALIKE = [("0.9", 0.0, 100_000.0), ("0.8", -0.02, 99_990.0)]


def test_controls_are_beside_the_front_and_never_on_it() -> None:
    result = build_answer([*search(), *control(30.0, 1.0)], BOTH)

    assert [r.name for r in result.rows if r.on_front] == [
        "rho_shared 0.99",
        "rho_shared 0.95",
        "rho_shared 0.8",
        "rho_shared 0.3",
    ]
    assert result.rows[-1].role == "control"
    assert result.best == "0.99"


@pytest.mark.parametrize("state", ["PRUNED", "FAIL", "RUNNING"])
def test_a_trial_that_did_not_finish_changes_nothing_but_the_last_sentence(state: State) -> None:
    extra = trial("0.5", 0, 99.0, 1.0, state=state)

    plain, result = build_answer(search(), BOTH), build_answer([*search(), extra], BOTH)

    assert result.rows == plain.rows
    assert result.sentences[:-1] == plain.sentences
    assert result.sentences[-1].startswith("Of 9 trials, 1 ")


def test_a_table_row_shows_differences_that_the_means_have() -> None:
    rows = {r.name: r for r in build_answer(search()[:-1], BOTH).rows}  # rho 0.99 on seed 0 only

    gap = rows["rho_shared 0.3"].values["delta_m"] - rows["rho_shared 0.95"].values["delta_m"]
    versus = rows["rho_shared 0.3"].versus_best.value - rows["rho_shared 0.95"].versus_best.value
    assert gap == pytest.approx(versus)
    assert rows["rho_shared 0.99"].seeds == (0,)


def test_one_objective_is_enough() -> None:
    result = build_answer([trial(str(r), s, r + 0.01 * s * r, None) for r in (0.3, 0.6, 0.9) for s in (0, 1)], [UP])

    assert result.recommended == result.best == "0.9"
    assert result.cost_name == ""
    assert [r.config_id for r in result.rows if r.on_front] == ["0.9"]


def test_a_metric_to_minimise_is_priced_with_the_right_sign() -> None:
    rows = [trial(n, s, 0.0, size, val__depth__rmse=v + 0.001 * s * size / 200)
            for n, v, size in [("0.5", 1.5, 100.0), ("0.9", 1.0, 200.0)] for s in (0, 1, 2)]  # fmt: skip

    result = build_answer(rows, [Objective(name="val/depth/rmse", goal="minimize"), DOWN])

    assert result.best == "0.9"
    assert re.search(r"rho_shared 0\.5 costs 0\.\d+ ± \S+ val/depth/rmse against 0\.9 and saves 50%", text_of(result))


def test_three_objectives_and_any_parameters() -> None:
    rows = [
        trial(str(i), s, i + 0.01 * s * i, 1000.0 * (i + 1), params={"optim.lr": 10.0**-i, "decoder.kind": "hrnet"},
              time__step_ms=20.0 + i)
        for i in range(3) for s in (0, 1)
    ]  # fmt: skip

    result = build_answer(rows, [UP, DOWN, Objective(name="time/step_ms", goal="minimize")])

    assert len([r for r in result.rows if r.on_front]) == 3
    assert "lr 0.1 costs" in text_of(result)
    assert "(time/step_ms -5%)" in text_of(result)


def test_nothing_finished_is_an_answer_too() -> None:
    for rows in ([], [trial("0.5", 0, 1.0, 1.0, state="FAIL")]):
        result = build_answer(rows, BOTH)
        assert result.recommended is None
        assert result.sentences[0] == "No trial of the search finished: there is nothing to compare."


def test_only_controls_finished() -> None:
    result = build_answer(control(1.0, 5.0), BOTH)

    assert result.best is None
    assert not math.isfinite(result.rows[0].versus_best.ci95)


def test_a_single_configuration_is_not_called_best() -> None:
    assert build_answer(search()[:2], BOTH).sentences[0].startswith("Only rho_shared 0.3 finished")


def test_a_trial_without_the_objective_is_left_out() -> None:
    rows = [*search(), trial("0.7", 0, math.nan, 1.0)]

    assert all(r.config_id != "0.7" for r in build_answer(rows, BOTH).rows)


def test_a_seed_without_a_value_is_no_part_of_a_mean() -> None:
    rows = [trial("0.7", 0, 1.0, 10.0, test__delta_m=2.0), trial("0.7", 1, 3.0, 10.0, test__delta_m=math.nan)]
    (row,) = build_answer(rows, BOTH).rows
    assert (row.values["delta_m"], row.test) == (2.0, 2.0)


values = st.floats(-20, 20).map(lambda x: round(x, 2))
tables = st.dictionaries(
    st.sampled_from(["0.1", "0.3", "0.5", "0.7", "0.9"]),
    st.tuples(st.dictionaries(st.integers(0, 2), values, min_size=1), st.integers(1, 9)),
    min_size=1,
)


def results(table: Mapping[str, tuple[dict[int, float], int]], role: Role = "trial") -> list[TrialResult]:
    return [trial(n, s, v, 1000.0 * size, role=role) for n, (row, size) in table.items() for s, v in row.items()]


@settings(max_examples=80, deadline=None)
@given(tables)
def test_the_recommended_is_never_told_apart_from_the_best_and_none_of_those_is_cheaper(
    table: dict[str, tuple[dict[int, float], int]],
) -> None:
    result = build_answer(results(table), BOTH)
    pick = next(r for r in result.rows if r.recommended)

    assert not pick.versus_best.is_significant
    if result.noise.dof:
        assert all((r.cost or 0) >= (pick.cost or 0) for r in result.rows if not r.versus_best.is_significant)
    else:
        assert pick.config_id == result.best


@settings(max_examples=80, deadline=None)
@given(tables, tables)
def test_whatever_came_in_every_sentence_is_a_sentence(
    table: dict[str, tuple[dict[int, float], int]], controls: dict[str, tuple[dict[int, float], int]]
) -> None:
    others = [r for r in results({f"0.0{k[2:]}": v for k, v in controls.items()}, "control")]

    for sentence in build_answer([*results(table), *others], BOTH).sentences:
        assert sentence.endswith(".")
        assert not re.search(r"\bnan\b|\binf\b|None|-0\.0\b|  |\.\.", sentence), sentence


@settings(max_examples=40, deadline=None)
@given(tables, st.randoms(use_true_random=False))
def test_the_order_of_trials_does_not_matter(table: dict[str, tuple[dict[int, float], int]], dice: Any) -> None:
    rows = results(table)
    shuffled = list(rows)
    dice.shuffle(shuffled)

    one, other = build_answer(rows, BOTH), build_answer(shuffled, BOTH)

    assert {r.config_id for r in one.rows if r.on_front} == {r.config_id for r in other.rows if r.on_front}
    assert one.noise.dof == other.noise.dof


@pytest.mark.parametrize(
    ("value", "half", "text"),
    [(1.0, 0.6, "1.0 ± 0.6"), (0.64, 0.56, "0.64 ± 0.56"), (0.012, 0.004, "0.012 ± 0.004"), (-0.01, 5.0, "0.0 ± 5.0"),
     (3.21, math.inf, "3.2"), (0.012, math.inf, "0.012")],
)  # fmt: skip
def test_numbers_have_the_decimals_that_their_noise_deserves(value: float, half: float, text: str) -> None:
    assert plus_minus(value, half) == text


@pytest.mark.parametrize(("value", "text"), [(187_000, "187k"), (1_288_000, "1.29M"), (42, "42"), (999_900, "1M")])
def test_counts_are_short(value: float, text: str) -> None:
    assert count(value) == text
