"""Rows of an ablation and the key findings: said only as far as the seeds bear them."""

from __future__ import annotations

import math
from typing import Any

import pyarrow as pa
import pytest
from scipy import stats

from faar_ray.records import TrialResult
from faar_ray.report.statistics.noise import mean_of
from faar_ray.report.statistics.paired import paired_difference
from faar_ray.report.words.key_findings import key_findings, seed_summaries

SEEDS = range(5)
NOISE = (0.0, 1.0, -1.0, 2.0, -2.0)


def trials(method: str, level: float, *, init_rank: int = 16, jitter: float = 0.05) -> list[TrialResult]:
    """Five seeds that share a large seed effect; what is left is small."""
    out = []
    for seed in SEEDS:
        value = level + 3 * NOISE[seed] + jitter * NOISE[-1 - seed]
        metrics = {"delta_m": value, "test/delta_m": value - 1, "trainable_params": 1e5}
        name = f"{method}-{init_rank}-s{seed}"
        params: dict[str, Any] = {"method": method, "ranks.init_rank": init_rank}
        out.append(TrialResult(name, f"{method}{init_rank}", seed, "trial", "COMPLETE", params, metrics, 1.0, 6))
    return out


def trace(results: list[TrialResult], rank: Any) -> list[dict[str, Any]]:
    return [
        {
            "trial_id": r.trial_id,
            "epoch": e,
            "stage": s,
            "layer": "fc1",
            "task": t,
            "rank": rank(s, t) if e == 5 else 16,
        }
        for r in results
        for e in (0, 5)
        for s in range(4)
        for t in ("shared", "normals")
    ]


def findings(results: list[TrialResult], rows: list[dict[str, Any]] | None = None) -> dict[str, str]:
    return dict(
        sentence.split(": ", 1) for sentence in key_findings(results, [pa.Table.from_pylist(rows)] if rows else [])
    )


def test_an_interval_is_students_over_the_seeds() -> None:
    result = mean_of([1.0, 2.0, 6.0])
    low, high = stats.t.interval(0.95, 2, loc=3.0, scale=stats.sem([1.0, 2.0, 6.0]))
    assert result.value - result.ci95 == pytest.approx(low)
    assert result.value + result.ci95 == pytest.approx(high)


def test_one_seed_has_no_interval_and_none_has_no_mean() -> None:
    assert math.isinf(mean_of([1.0]).ci95)
    assert math.isnan(mean_of([]).value)


def test_pairing_takes_the_seeds_own_effect_out_and_uses_common_seeds_only() -> None:
    a, b = ({r.seed: r.metrics["delta_m"] for r in trials(m, level)} for m, level in (("x", 2.0), ("y", 1.0)))
    gap = paired_difference(a, {seed: v for seed, v in b.items() if seed != 3})
    assert (gap.dof, round(gap.value, 6)) == (3, 1.0)
    assert gap.ci95 < 1e-9


def test_rows_are_sorted_and_hold_val_test_and_cost() -> None:
    rows = seed_summaries([*trials("lora", 1.0), *trials("faar", 2.0)])
    assert [row.name for row in rows] == ["faar", "lora"]
    assert rows[0].val.value == pytest.approx(2.0)
    assert rows[0].test.value == pytest.approx(1.0)
    assert (rows[0].params, rows[0].seeds) == (1e5, tuple(SEEDS))


def test_every_key_finding_holds_where_it_does() -> None:
    results = [
        *trials("lora", 2.0), *trials("dora", 1.0), *trials("pdrs_lora", 2.0), *trials("pdrs_dora", 4.0),
        *trials("cw_sp", 3.0), *trials("ts_pd", 3.8), *trials("faar", 5.0), *trials("faar", 5.1, init_rank=8),
    ]  # fmt: skip
    faar = [r for r in results if r.params == {"method": "faar", "ranks.init_rank": 16}]
    result = findings(results, trace(faar, lambda stage, task: 2 + 3 * stage + (task != "shared")))
    assert len(result) == 5
    assert all(text.startswith("holds") for text in result.values()), result
    assert "+9.0 ± 0.0 (95%, 5 seeds) rank" in result["Deeper layers keep larger ranks"]


def test_a_finding_that_does_not_hold_is_called_so() -> None:
    results = [
        *trials("lora", 1.0), *trials("dora", 2.0), *trials("pdrs_lora", 2.0), *trials("pdrs_dora", 4.0),
        *trials("cw_sp", 3.0), *trials("ts_pd", 2.0), *trials("faar", 5.0), *trials("faar", 9.0, init_rank=8),
    ]  # fmt: skip
    faar = [r for r in results if r.params == {"method": "faar", "ranks.init_rank": 16}]
    result = findings(results, trace(faar, lambda stage, task: 9 - stage - (task != "shared")))
    assert len(result) == 5
    assert all(text.startswith("does not hold") for text in result.values()), result


def test_a_gap_within_the_noise_is_open() -> None:
    noisy = [*trials("cw_sp", 3.0, jitter=1.0), *trials("ts_pd", 3.5, jitter=-1.0)]
    assert findings(noisy)["XT-Cons adds on top of CW-SP"].startswith("is open")


def test_nothing_is_said_of_rows_that_are_missing_or_alone() -> None:
    assert findings(trials("lora", 1.0)) == {}
    one_seed = [r for r in (*trials("cw_sp", 1.0), *trials("ts_pd", 2.0)) if r.seed == 0]
    assert findings(one_seed) == {}


def test_dora_and_lora_are_compared_at_the_lowest_and_highest_fixed_rank_where_nothing_shrinks() -> None:
    fixed = [*trials("lora", 1.0, init_rank=4), *trials("lora", 3.0), *trials("lora", 9.0, init_rank=8)]
    holds = findings([*fixed, *trials("dora", 2.0, init_rank=4), *trials("dora", 3.0, jitter=-0.05)])
    text = holds["DoRA beats LoRA at low rank only"]
    assert text.startswith("holds")
    assert "DoRA against LoRA +1.0" in text
    assert "(95%, 5 seeds) delta_m at rank 4, " in text
    assert text.endswith("at rank 16.")
    refuted = findings([*fixed, *trials("dora", 2.0, init_rank=4), *trials("dora", 4.0)])
    assert refuted["DoRA beats LoRA at low rank only"].startswith("does not hold")


@pytest.mark.parametrize(("level", "verdict"), [(0.6, "holds"), (0.97, "does not hold"), (0.9, "is open")])
def test_frequencies_part_the_tasks_where_the_cosine_of_their_weights_says_so(level: float, verdict: str) -> None:
    results = trials("free_sinewich", 1.0)
    for result, noise in zip(results, NOISE, strict=True):
        result.metrics["sine/cosine"] = level + 0.005 * noise
    (text,) = findings(results).values()
    assert text.startswith(verdict)
    assert f"The cosine is {level:.2f} ± 0.01 (95%, 5 seeds)" in text
