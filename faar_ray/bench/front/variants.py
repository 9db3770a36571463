"""FAAR with one thing changed, beside the plain one at the same rho, and beside fixed ranks of its own size."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from faar_ray.bench.front import stages
from faar_ray.bench.front.plots import plot_variants
from faar_ray.bench.front.rows import RHO, SIZE, TEST, VAL, Row, of_kind, rows_of
from faar_ray.bench.front.sizes import Comparison, comparison_facts, read_off, row_facts
from faar_ray.bench.front.studies import Result, Study
from faar_ray.bench.front.words import difference, estimate, table
from faar_ray.report.statistics.noise import mean_of
from faar_ray.report.statistics.paired import paired_difference
from faar_ray.report.words.wording import count

FIXED = "front_embedded_baselines"
"""Whose fixed ranks, if they were trained, are read off at each row's size."""
PLAIN = {"pdrs.basis": "raw", "pdrs.mask_share": 1.0, "optim.loss_norm": "none"}
WORDS = {
    "pdrs.basis": "spectral basis",
    "pdrs.mask_share": "masks in {:.0%} of the steps",
    "optim.loss_norm": "normalised losses",
}
HOW = (
    "Against plain FAAR at the same rho, and against fixed ranks at the row's own size (linear in its logarithm); "
    "paired over seeds, 95% t-intervals, each for itself. At equal rho sizes differ, which the second pair takes out."
)


def analyse(study: Study, out: Path, folder: Path) -> Result:
    """Compare, and draw `front.png`."""
    space = stages.read_stage(study.stages[0])
    rows = rows_of(stages.finished(study, out), space)
    rows.sort(key=lambda row: (float(row.config.params[RHO]), len(changed(row.config.params)), name_of(row)))
    fixed = of_kind(rows_of(stages.results_of(out / "runs" / FIXED), space), "fixed")

    plain, level = [*against_plain(rows)], [*against_fixed_sizes(rows, fixed)]
    variants: dict[str, list[Row]] = {}
    for row in sorted(rows, key=lambda row: (len(changed(row.config.params)), words_of(row), row.size)):
        variants.setdefault(words_of(row), []).append(row)
    plot_variants(variants, fixed, folder / "front.png")
    return {
        "seeds": sorted({seed for row in rows for seed in row.by_seed(VAL)}),
        "rows": [row_facts(row) | {"name": name_of(row)} for row in rows],
        "against_plain": [comparison_facts(one) | {"row": name_of(one.row)} for one in plain],
        "against_fixed": [comparison_facts(one) | {"row": name_of(one.row)} for one in level],
        "markdown": [*variants_table(rows, plain, level)],
    }


def changed(params: Mapping[str, Any]) -> dict[str, Any]:
    """What differs from plain FAAR."""
    return {key: value for key, value in params.items() if key in PLAIN and value != PLAIN[key]}


def name_of(row: Row) -> str:
    """`rho 0.8, spectral basis`."""
    return f"rho {row.config.params[RHO]:g}, {words_of(row)}"


def words_of(row: Row) -> str:
    """`spectral basis`; `plain` where nothing is changed."""
    return ", ".join(WORDS[key].format(value) for key, value in changed(row.config.params).items()) or "plain"


def against_plain(rows: Sequence[Row]) -> Iterator[Comparison]:
    """Every changed row against the plain one of its rho."""
    plain = {row.config.params[RHO]: row for row in rows if not changed(row.config.params)}
    for row in rows:
        other = plain.get(row.config.params[RHO])
        if other is not None and other is not row:
            gains = {m: paired_difference(row.by_seed(m), other.by_seed(m)) for m in (VAL, TEST, SIZE)}
            yield Comparison(row, name_of(other), gains)


def against_fixed_sizes(rows: Sequence[Row], fixed: Sequence[Row]) -> Iterator[Comparison]:
    """Every row against fixed ranks at the size that it has on each seed."""
    for row in rows if fixed else ():
        gains = {m: paired_difference(row.by_seed(m), read_off(row.by_seed(SIZE), fixed, m)) for m in (VAL, TEST)}
        yield Comparison(row, "fixed ranks at its size", gains)


def variants_table(rows: Sequence[Row], plain: Sequence[Comparison], level: Sequence[Comparison]) -> Iterator[str]:
    """One line for each row."""
    by_row = [{one.row.config.config_id: one.gains for one in compared} for compared in (plain, level)]
    lines = []
    for row in rows:
        cells = [name_of(row), count(row.size)]
        cells += [estimate(mean_of([*row.by_seed(metric).values()])) for metric in (VAL, TEST)]
        for gains in by_row:
            own = gains.get(row.config.config_id, {})
            cells += [difference(own[metric]) if metric in own else "" for metric in (VAL, TEST)]
        lines.append(cells)
    head = ("FAAR", "adapter parameters", "delta_m, val", "delta_m, test", "minus plain, val", "test")
    yield from table((*head, "minus fixed ranks of its size, val", "test"), lines)
    yield from ("", HOW)
