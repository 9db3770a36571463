"""What a search ends with."""

from __future__ import annotations

import io
import json
import math
from collections.abc import Callable
from pathlib import Path

from rich.console import Console

from faar_ray.objectives.metrics import Objective
from faar_ray.records import RankRecord, TrialResult
from faar_ray.report.words.answer import build_answer
from faar_ray.storage.run_location import RunLocation
from faar_ray.tracking.files.rank_trace import write_rank_trace
from faar_ray.tune.show.outcome import best_of, json_line, show_answer, show_ranks
from faar_ray.tune.space.space import SearchSpace

GOALS = [Objective(name="delta_m", goal="maximize"), Objective(name="trainable_params", goal="minimize")]


def result(number: int, delta_m: float, params: float, seed: int = 0) -> TrialResult:
    metrics = {"delta_m": delta_m, "trainable_params": params, "test/delta_m": delta_m - 1}
    rho = {"pdrs.rho_shared": 0.9 + number / 100}
    return TrialResult(f"t00{number}-s{seed}", f"id{number}", seed, "trial", "COMPLETE", rho, metrics, 9.0, 3)


def test_the_best_are_the_front_with_the_best_quality_first() -> None:
    trials = [result(0, 1.0, 30), result(1, 3.0, 20), result(2, 2.0, 10)]
    assert [r.trial_id for r in best_of(trials, GOALS)] == ["t001-s0", "t002-s0"]
    assert [r.trial_id for r in best_of(trials, GOALS[:1])] == ["t001-s0"]
    assert best_of([], GOALS) == []


def test_the_json_line_holds_what_the_contract_says(space: Callable[..., SearchSpace]) -> None:
    one = result(0, 1.0, 30)
    counts = {"complete": 1, "pruned": 0, "failed": 0}
    config = space().trial_config(one.params)
    line = json_line("tiny", "/runs/tiny", "sqlite:///x", "abc", counts, [one], {one.trial_id: config})
    assert "\n" not in line
    outcome = json.loads(line)
    assert list(outcome) == ["name", "path", "tracking_uri", "parent_run_id", "trials", "best"]
    assert list(outcome["best"][0]) == ["trial_id", "config", "metrics"]
    assert outcome["best"][0]["config"]["pdrs"]["rho_shared"] == 0.9


def test_the_best_and_their_json_line_have_no_nan(space: Callable[..., SearchSpace]) -> None:
    one, other = result(0, 1.0, 30), result(1, math.nan, 20)
    one.metrics["val/normals/mean_angle"] = math.nan
    assert best_of([one, other], GOALS) == [one]
    counts = {"complete": 1, "pruned": 0, "failed": 0}
    line = json_line("tiny", "/runs", "uri", "abc", counts, [one], {one.trial_id: space().trial_config(one.params)})

    def refuse(constant: str) -> None:
        raise AssertionError(constant)

    assert json.loads(line, parse_constant=refuse)["best"][0]["metrics"]["val/normals/mean_angle"] is None


def test_the_table_fits_eighty_columns_and_keeps_names_whole() -> None:
    trials = [result(0, 1.0, 30e3), result(0, 1.5, 30e3, seed=1), result(1, 3.0, 20e3), result(1, 3.2, 21e3, seed=1)]
    out = io.StringIO()
    show_answer(
        Console(file=out, width=80, color_system=None), build_answer(trials, GOALS), "val and test: resized 448x448"
    )
    lines = out.getvalue().splitlines()
    assert max(map(len, lines)) <= 80
    assert "val and test: resized 448x448" in lines
    (best,) = [line for line in lines if line.startswith("rho_shared 0.91")]
    assert "take this" in best


def test_the_last_words_say_which_ranks_the_recommended_configuration_found(tmp_path: Path) -> None:
    """Of its trials whose traces are here; nothing where none is."""
    trials = [result(0, 1.0, 30e3), result(0, 1.5, 30e3, seed=1), result(1, 3.0, 20e3), result(1, 3.2, 21e3, seed=1)]
    answer, place = build_answer(trials, GOALS), RunLocation(tmp_path)

    def shown() -> str:
        out = io.StringIO()
        show_ranks(Console(file=out, width=200, color_system=None), answer, place)
        return out.getvalue()

    assert shown() == ""
    for trial, cut in (("t000-s0", 1), ("t001-s0", 4), ("t001-s1", 5)):
        ranks = [
            RankRecord(2, 0, 0, layer, "shared", 8, rank, "adapter", 0.9, 0.9, (1.0,) * 8, 0, 9)
            for layer, rank in (("qkv", cut + 2), ("fc1", cut))
        ]
        write_rank_trace(place.trial(trial).trace, trial, ranks)
    headline, differences = shown().splitlines()
    assert headline.startswith("Ranks of rho_shared 0.91 (2 adapters, 2 seeds): 5.5 ± ")
    assert "qkv (6.5 ± " in headline and headline.endswith("repeats over seeds (rank correlation 1.00).")
    assert differences == "Layers: qkv above fc1 by 2.0 ± 0.0."
