"""Quality at equal size, and hypervolume over epochs: spectral ranks against fixed ranks and FAAR."""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from faar_ray.bench.front import stages
from faar_ray.bench.front.plots import plot_sizes
from faar_ray.bench.front.rows import SIZE, TEST, VAL, Row, cut_rows, front_rows, of_kind, rows_of, same_size
from faar_ray.bench.front.studies import Result, Study
from faar_ray.bench.front.volume import (
    FAAR,
    FIXED,
    ONE_RUN,
    ONLY_CUT,
    Curve,
    best_order,
    curve,
    one_run,
    whole_trainings,
)
from faar_ray.bench.front.words import difference, estimate, table
from faar_ray.report.statistics.noise import Estimate, mean_of
from faar_ray.report.statistics.paired import at_size, paired_difference
from faar_ray.report.words.wording import count

SCORING = 0.5
"""Epochs charged for the gradients of a rotation: 30 batches, of 60 in an epoch of the embedded data."""
HOW = (
    "Spectral rows against the fixed rank of their size; FAAR against the front's rows, read off at FAAR's own size "
    "(linear in its logarithm). Paired over seeds, 95% t-intervals, each for itself."
)


@dataclass(frozen=True)
class Comparison:
    """A row against something of its size."""

    row: Row
    against: str
    gains: Mapping[str, Estimate]
    """By metric: the row minus the other, paired over seeds."""


def analyse(study: Study, out: Path, folder: Path) -> Result:
    """Compare, and draw `front.png`; gives what `result.json` holds, its `markdown` among it."""
    rows = rows_of(stages.finished(study, out), stages.read_stage(study.stages[0]))
    front = front_rows(rows)
    compared = [*against_fixed(rows), *against_front(of_kind(rows, "pdrs"), front)]
    curves = curves_of(study, rows)
    plot_sizes(rows, front, curves, folder / "front.png")
    return {
        "seeds": sorted({seed for row in rows for seed in row.by_seed(VAL)}),
        "rows": [row_facts(row) for row in rows],
        "equal_size": [comparison_facts(comparison) for comparison in compared],
        "curves": [curve_facts(traced) for traced in curves],
        "markdown": [*sizes_table(rows, compared), "", *verdict(front, compared), "", *volume_table(curves)],
    }


def against_fixed(rows: Sequence[Row]) -> Iterator[Comparison]:
    """Every spectral row against the fixed rank of its size."""
    for fixed in of_kind(rows, "fixed"):
        for row in same_size(of_kind(rows, "spectral"), fixed.size):
            gains = {metric: paired_difference(row.by_seed(metric), fixed.by_seed(metric)) for metric in (VAL, TEST)}
            yield Comparison(row, fixed.name, gains)


def against_front(faar: Sequence[Row], front: Sequence[Row]) -> Iterator[Comparison]:
    """FAAR against what the front has at FAAR's own size of the same seed."""
    for row in faar:
        gains = {m: paired_difference(row.by_seed(m), read_off(row.by_seed(SIZE), front, m)) for m in (VAL, TEST)}
        yield Comparison(row, "the front at its size", gains)


def read_off(sizes: Mapping[int, float], front: Sequence[Row], metric: str) -> dict[int, float]:
    """The front's value at a size of each seed; seeds whose size lies outside of the front are left out."""
    curves = {
        seed: [(row.by_seed(SIZE)[seed], row.by_seed(metric)[seed]) for row in front if seed in row.by_seed(metric)]
        for seed in sizes
    }
    found = {seed: at_size(curves[seed], size) for seed, size in sizes.items()}
    return {seed: value for seed, value in found.items() if not math.isnan(value)}


def curves_of(study: Study, rows: Sequence[Row]) -> list[Curve]:
    """One run with its cuts and forks, fixed ranks, FAAR; on the seeds that all rows have."""
    front, fixed, faar = front_rows(rows), of_kind(rows, "fixed"), of_kind(rows, "pdrs")
    used = [*front, *fixed, *faar]
    seeds = sorted(set.intersection(*(set(row.by_seed(VAL)) for row in used))) if used else []
    if not seeds:
        return []

    ways = [(FIXED, best_order(whole_trainings(fixed), study.box, seeds))]
    ways += [(FAAR, best_order(whole_trainings(faar), study.box, seeds))]
    if any(row.kind == "spectral" for row in front):
        steps = one_run(front, SCORING)
        cut = [row for row in cut_rows(rows) if set(seeds) <= set(row.by_seed(VAL))]
        ways.insert(0, (ONLY_CUT, one_run(cut, SCORING)[:1]))
        ways.insert(0, (ONE_RUN, best_order(steps, study.box, seeds, steps[:1])))
    return [curve(name, steps, study.box, seeds) for name, steps in ways if steps]


def sizes_table(rows: Sequence[Row], compared: Sequence[Comparison]) -> Iterator[str]:
    """One line for each row, by size."""
    gains = {comparison.row.config.config_id: comparison.gains for comparison in compared}
    lines = []
    for row in sorted(rows, key=lambda row: (_size_class(row, rows), row.kind != "fixed", row.trained, row.name)):
        cells = [count(row.size), row.name]
        cells += [estimate(mean_of([*row.by_seed(metric).values()])) for metric in (VAL, TEST)]
        own = gains.get(row.config.config_id, {})
        cells += [difference(own[metric]) if metric in own else "" for metric in (VAL, TEST)]
        lines.append(cells)
    head = ("adapter parameters", "ranks", "delta_m, val", "delta_m, test", "against equal size, val", "test")
    yield from table(head, lines)
    yield from ("", HOW)


def _size_class(row: Row, rows: Sequence[Row]) -> float:
    """A fixed rank and what is of its size stay together."""
    return next((fixed.size for fixed in of_kind(rows, "fixed") if same_size([row], fixed.size)), row.size)


def verdict(front: Sequence[Row], compared: Sequence[Comparison]) -> Iterator[str]:
    """How often the front's rows beat what is of their size, and are beaten."""
    chosen = {row.config.config_id for row in front}
    own = [one for one in compared if one.row.kind == "spectral" and one.row.config.config_id in chosen]
    faar = [one for one in compared if one.row.kind == "pdrs" and not math.isnan(one.gains[VAL].value)]
    for rival, sign, comparisons in (("fixed ranks", 1, own), ("FAAR", -1, faar)):
        if comparisons:
            parts = [_tally([sign * _sign(one.gains[metric]) for one in comparisons]) for metric in (VAL, TEST)]
            yield f"The front against {rival} of its size: val {parts[0]}; test {parts[1]}."


def _sign(gain: Estimate) -> int:
    return 0 if not gain.is_significant else 1 if gain.value > 0 else -1


def _tally(signs: Sequence[int]) -> str:
    return f"ahead at {signs.count(1)} of {len(signs)} sizes, behind at {signs.count(-1)}"


def volume_table(curves: Sequence[Curve]) -> Iterator[str]:
    """The hypervolumes by epochs, and how far ahead of each the whole front of one run is."""
    whole = curves[0] if curves and curves[0].name == ONE_RUN else None
    lines = []
    for traced in curves:
        for index, label in enumerate(traced.labels):
            found = percent(traced.found[index]), percent(traced.tested[index])
            cells = [traced.name, f"{traced.epochs[index]:g}", f"+ {label}"]
            cells += [estimate(mean_of([*values.values()])) for values in found]
            if whole is not None and traced is not whole:
                ends = percent(whole.found[-1]), percent(whole.tested[-1])
                cells += [difference(paired_difference(*pair)) for pair in zip(ends, found, strict=True)]
            lines.append([*cells, *[""] * (7 - len(cells))])
    head = ("way", "epochs", "with", "hypervolume, %, val", "test", f"{ONE_RUN}, minus this, val", "test")
    yield from table(head, lines)


def percent(found: Mapping[int, float]) -> dict[int, float]:
    """Shares as percentages."""
    return {seed: 100 * value for seed, value in found.items()}


def row_facts(row: Row) -> dict[str, Any]:
    """A row as JSON."""
    values = {metric: {str(seed): value for seed, value in row.by_seed(metric).items()} for metric in (VAL, TEST, SIZE)}
    return {"name": row.name, "config_id": row.config.config_id, "params": row.config.params} | values


def comparison_facts(comparison: Comparison) -> dict[str, Any]:
    """A comparison as JSON."""
    facts = {"row": comparison.row.name, "size": comparison.row.size, "against": comparison.against}
    return facts | {metric: gain_facts(gain) for metric, gain in comparison.gains.items()}


def gain_facts(gain: Estimate) -> dict[str, Any]:
    """A difference as JSON; null for what is not known."""
    return {name: value if math.isfinite(value) else None for name, value in asdict(gain).items()}


def curve_facts(traced: Curve) -> dict[str, Any]:
    """A curve as JSON."""
    parts = zip(traced.epochs, traced.labels, traced.found, traced.tested, strict=True)
    steps = [
        {"epochs": spent, "with": label, "hypervolume": val, "hypervolume_test": test}
        for spent, label, val, test in parts
    ]
    return {"name": traced.name, "steps": steps}
