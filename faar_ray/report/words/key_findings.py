"""Configurations of an ablation with 95% intervals, and which of the FAAR paper's key findings hold for them.

Student's t throughout, paired over seeds: trials of one seed share inits, batch order and masks. Pure functions.
"""

from __future__ import annotations

import math
from collections import defaultdict
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import combinations
from statistics import fmean
from typing import Any

import pyarrow as pa

from faar_ray.records import TrialResult, known
from faar_ray.report.statistics.groups import complete_configs, with_names
from faar_ray.report.statistics.noise import Estimate, mean_of
from faar_ray.report.statistics.paired import paired_difference
from faar_ray.report.words.wording import plus_minus

METHOD, INIT_RANK = "method", "ranks.init_rank"
COLUMNS = ["trial_id", "epoch", "stage", "task", "layer", "rank"]
NEGLIGIBLE = 1.0
"""Points of delta_m below which a difference counts as negligible."""
COSINE = "sine/cosine"
PARTED = 0.9
"""Cosine of two tasks' weights below which they count as parted; at the start it is about 1."""
Values = Mapping[int, float]
"""A metric by seed."""


@dataclass(frozen=True)
class SeedSummary:
    """One configuration over its seeds."""

    name: str
    seeds: tuple[int, ...]
    val: Estimate
    """Mean on the val split; `test` likewise, where it was read."""
    test: Estimate
    params: float
    """Mean of all trainable parameters; nan where unknown."""


def seed_summaries(results: Sequence[TrialResult], metric: str = "delta_m") -> list[SeedSummary]:
    """Complete configurations, best first."""
    rows = []
    for config in with_names(complete_configs(results)):
        val, test = (mean_of(config.values(name)) for name in (metric, f"test/{metric}"))
        params = config.mean("trainable_params")
        rows.append(SeedSummary(config.name, config.seeds, val, test, math.nan if params is None else params))
    return sorted(rows, key=lambda row: -row.val.value if math.isfinite(row.val.value) else math.inf)


def key_findings(results: Sequence[TrialResult], traces: Iterable[pa.Table]) -> Iterator[str]:
    """A sentence for each key finding that these trials can test.

    Args:
        results: all trials; `method` must be among their parameters.
        traces: rank traces of these trials.

    Yields:
        "<finding>: holds | does not hold | is open. <evidence>."
    """
    rows = _Rows(results)
    yield from _depth_and_task(rows, [row for trace in traces for row in trace.select(COLUMNS).to_pylist()])
    yield from _dora_and_lora(rows)
    yield from _initial_rank(rows)
    gain = paired_difference(rows.of("ts_pd"), rows.of("cw_sp"))
    if gain.dof:
        yield _format_finding("XT-Cons adds on top of CW-SP", gain, "delta_m")
    yield from _frequencies(rows)


class _Rows:
    """delta_m by seed of a method, at the initial rank that most methods ran with."""

    def __init__(self, results: Sequence[TrialResult]) -> None:
        self.done = [r for r in results if r.state == "COMPLETE" and r.role != "reference" and METHOD in r.params]
        methods: dict[Any, set[str]] = defaultdict(set)
        for result in self.done:
            methods[result.params.get(INIT_RANK)].add(result.params[METHOD])
        self.usual = max(methods, key=lambda rank: len(methods[rank]), default=None)

    def of(self, method: str) -> dict[int, float]:
        return {r.seed: r.metrics["delta_m"] for r in self.trials(method) if "delta_m" in known(r.metrics)}

    def trials(self, method: str) -> list[TrialResult]:
        return [r for r in self.done if r.params[METHOD] == method and r.params.get(INIT_RANK) == self.usual]

    def by_initial_rank(self, method: str) -> dict[int, dict[int, float]]:
        out: dict[int, dict[int, float]] = defaultdict(dict)
        for r in self.done:
            if r.params[METHOD] == method and INIT_RANK in r.params and "delta_m" in known(r.metrics):
                out[r.params[INIT_RANK]][r.seed] = r.metrics["delta_m"]
        return dict(sorted(out.items()))


def _depth_and_task(rows: _Rows, trace: Sequence[Mapping[str, Any]]) -> Iterator[str]:
    trials = rows.trials("faar") or rows.trials("pdrs_dora")
    last = {r.trial_id: r.reached - 1 for r in trials}
    ended = [row for row in trace if last.get(row["trial_id"]) == row["epoch"]]
    if not ended:
        return
    seeds = {r.trial_id: r.seed for r in trials}
    depth = max(row["stage"] for row in ended)
    with_task_adapters = {row["layer"] for row in ended if row["task"] != "shared"}
    deep = _mean_rank(ended, seeds, lambda row: row["stage"] == depth)
    shallow = _mean_rank(ended, seeds, lambda row: row["stage"] == 0)
    per_task = _mean_rank(ended, seeds, lambda row: row["task"] != "shared")
    shared = _mean_rank(ended, seeds, lambda row: row["task"] == "shared" and row["layer"] in with_task_adapters)
    yield _format_finding(
        "Deeper layers keep larger ranks", paired_difference(deep, shallow), "rank, last stage minus first"
    )
    if per_task:
        gap = paired_difference(per_task, shared)
        yield _format_finding("Task-specific layers keep larger ranks", gap, "rank, task adapters against shared")


def _mean_rank(
    trace: Sequence[Mapping[str, Any]], seeds: Mapping[str, int], wanted: Callable[[Mapping[str, Any]], bool]
) -> dict[int, float]:
    ranks: dict[int, list[int]] = defaultdict(list)
    for row in trace:
        if wanted(row):
            ranks[seeds[row["trial_id"]]].append(row["rank"])
    return {seed: fmean(values) for seed, values in ranks.items()}


def _dora_and_lora(rows: _Rows) -> Iterator[str]:
    """At the usual rank and after PDRS, or else at the lowest and the highest fixed rank that both ran with."""
    high, low = (
        paired_difference(rows.of("dora"), rows.of("lora")),
        paired_difference(rows.of("pdrs_dora"), rows.of("pdrs_lora")),
    )
    where_low, where_high = "after PDRS", "at the fixed initial rank"
    dora, lora = rows.by_initial_rank("dora"), rows.by_initial_rank("lora")
    if not low.dof and len(ranks := sorted(dora.keys() & lora.keys())) > 1:
        low, high = (paired_difference(dora[rank], lora[rank]) for rank in (ranks[0], ranks[-1]))
        where_low, where_high = (f"at rank {rank}" for rank in (ranks[0], ranks[-1]))
    if not (high.dof and low.dof):
        return
    wins_low, wins_high = (gap.is_significant and gap.value > 0 for gap in (low, high))
    verdict = (
        "holds" if wins_low and not wins_high else "does not hold" if wins_high or _excludes_gain(low) else "is open"
    )
    gaps = f"{_format_gap(low)} delta_m {where_low}, {_format_gap(high)} {where_high}"
    yield f"DoRA beats LoRA at low rank only: {verdict}. DoRA against LoRA {gaps}."


def _initial_rank(rows: _Rows) -> Iterator[str]:
    pairs = {
        (a, b): paired_difference(of_b, of_a)
        for (a, of_a), (b, of_b) in combinations(rows.by_initial_rank("faar").items(), 2)
    }
    gaps = {ranks: gap for ranks, gap in pairs.items() if gap.dof}
    if not gaps:
        return
    (small, large), widest = max(gaps.items(), key=lambda pair: abs(pair[1].value) + pair[1].ci95)
    inside = all(abs(gap.value) + gap.ci95 <= NEGLIGIBLE for gap in gaps.values())
    outside = any(abs(gap.value) - gap.ci95 > NEGLIGIBLE for gap in gaps.values())
    verdict = "holds" if inside else "does not hold" if outside else "is open"
    yield (
        f"The initial rank hardly matters (under {NEGLIGIBLE:g} delta_m): {verdict}. The widest gap is "
        f"{_format_gap(widest)} delta_m, {large} against {small}."
    )


def _frequencies(rows: _Rows) -> Iterator[str]:
    """Free Sinewich's own finding: tasks that share one base get weights of their own by their frequencies."""
    cosines = {r.seed: r.metrics[COSINE] for r in rows.trials("free_sinewich") if COSINE in known(r.metrics)}
    mean = mean_of(list(cosines.values()))
    if not mean.dof:
        return
    apart, together = mean.value + mean.ci95 < PARTED, mean.value - mean.ci95 > PARTED
    verdict = "holds" if apart else "does not hold" if together else "is open"
    claim = f"Frequency switching parts the tasks (mean cosine of their weights below {PARTED:g})"
    yield (f"{claim}: {verdict}. The cosine is {mean.value:.2f} ± {mean.ci95:.2f} (95%, {mean.dof + 1} seeds).")


def _format_finding(claim: str, gap: Estimate, unit: str) -> str:
    verdict = "holds" if gap.is_significant and gap.value > 0 else "does not hold" if _excludes_gain(gap) else "is open"
    return f"{claim}: {verdict}. {_format_gap(gap)} {unit}."


def _excludes_gain(gap: Estimate) -> bool:
    """Whether a positive difference that matters can be excluded."""
    return gap.dof > 0 and (gap.is_significant or gap.value + gap.ci95 < NEGLIGIBLE / 2)


def _format_gap(gap: Estimate) -> str:
    sign = "+" if gap.value > 0 else ""
    how = f"(95%, {gap.dof + 1} seeds)" if gap.dof else "(one seed)"
    return f"{sign}{plus_minus(gap.value, gap.ci95)} {how}"
