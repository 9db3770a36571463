"""The output at the end of a search: the table of configurations, the answer, and the JSON line."""

from __future__ import annotations

import json
import math
from collections.abc import Mapping, Sequence
from typing import Any

import pyarrow as pa
from rich.console import Console
from rich.table import Table
from rich.text import Text

from faar_ray.config.trial import TrialConfig
from faar_ray.objectives.metrics import Objective
from faar_ray.objectives.pareto import pareto_front
from faar_ray.records import TrialResult, json_metrics, known
from faar_ray.report.statistics.table import Row, grouped
from faar_ray.report.words.answer import Answer
from faar_ray.report.words.key_findings import key_findings, seed_summaries
from faar_ray.report.words.rank_words import rank_sentences, recommended_ranks
from faar_ray.report.words.wording import UNITS, count, label, plus_minus
from faar_ray.storage.run_location import RunLocation
from faar_ray.tracking.files.rank_trace import read_rank_trace

MOST_ROWS = 40
"""Configurations in a terminal."""


def best_of(results: Sequence[TrialResult], objectives: Sequence[Objective]) -> list[TrialResult]:
    """The non-dominated of the given trials (complete and feasible ones), best in the first objective first."""
    by_id = {r.trial_id: r for r in results if all(o.name in known(r.metrics) for o in objectives)}
    values = {name: [result.metrics[o.name] for o in objectives] for name, result in by_id.items()}
    front = pareto_front(values, objectives)
    best = [result for name, result in by_id.items() if name in front]  # ties stay in the order of the trials
    return sorted(best, key=lambda result: -objectives[0].sign * result.metrics[objectives[0].name])


def json_line(
    name: str,
    path: str,
    tracking_uri: str,
    parent_run_id: str,
    counts: Mapping[str, int],
    best: Sequence[TrialResult],
    configs: Mapping[str, TrialConfig],
) -> str:
    """The JSON line that `--json` ends with."""
    rows = [
        {
            "trial_id": r.trial_id,
            "config": configs[r.trial_id].model_dump(mode="json"),
            "metrics": json_metrics(r.metrics),
        }
        for r in best
    ]
    line: dict[str, Any] = {"name": name, "path": path, "tracking_uri": tracking_uri}
    line |= {"parent_run_id": parent_run_id, "trials": dict(counts), "best": rows}
    return json.dumps(line, allow_nan=False)


def show_answer(console: Console, answer: Answer, measured: str) -> None:
    """The table, how its numbers were measured (`measured_as`), and its sentences."""
    console.print()
    if answer.rows:
        console.print(answer_table(answer))
        console.print(Text(measured, "dim"))
    for sentence in answer.sentences:
        console.print(Text(sentence))


def answer_table(answer: Answer) -> Table:
    """Configurations in groups that cannot be told apart, the cheapest first; controls beside; ± is 95%."""
    quality = answer.quality.name
    table = Table(box=None, padding=(0, 1, 0, 0), header_style="bold")
    table.add_column("\nconfiguration", overflow="fold", min_width=min(20, max(len(row.name) for row in answer.rows)))
    cost = label(answer.cost_name).replace(" ", "\n", 1)
    for title in (f"{quality}\nval", "against\nbest", cost, f"{quality}\ntest", "\nseeds"):
        table.add_column(title, justify="right", no_wrap=True)
    table.add_column("", no_wrap=True, min_width=max(len(_mark(row)) for row in answer.rows))
    groups = grouped(answer.rows, MOST_ROWS)
    for row in [*(row for group in groups for row in group), *(row for row in answer.rows if row.role != "trial")]:
        style = "bold" if row.recommended else "dim" if row.role != "trial" else ""
        table.add_row(*(Text(cell, style) for cell in _cells(row, answer)))
        if len(groups) > 1 and row is not answer.rows[-1] and any(row is group[-1] for group in groups):
            table.add_row()
    return table


def show_list(console: Console, answer: Answer, results: Sequence[TrialResult], trace: pa.Table, measured: str) -> None:
    """Every listed configuration with its 95% interval, the answer, and which of FAAR's key findings hold."""
    table = Table(box=None, padding=(0, 1, 0, 0), header_style="bold", title="mean and 95% interval over seeds")
    table.add_column("configuration", overflow="fold")
    for title in ("delta_m val", "delta_m test", "trainable", "seeds"):
        table.add_column(title, justify="right", no_wrap=True)
    for row in seed_summaries(results):
        val, test = (plus_minus(of.value, of.ci95) for of in (row.val, row.test))
        table.add_row(row.name, val, test, count(row.params), str(len(row.seeds)))
    console.print()
    console.print(table)
    console.print(Text(measured, "dim"))
    for sentence in answer.sentences:
        console.print(Text(sentence))
    if key := list(key_findings(results, [trace])):
        console.print(Text("\nKey findings of the FAAR paper, on these data:", "bold"))
        for sentence in key:
            console.print(Text(f"- {sentence}"))


def show_ranks(console: Console, answer: Answer, place: RunLocation) -> None:
    """Which ranks the recommended configuration found, where its traces are here."""

    def trace_of(trial: str) -> pa.Table | None:
        file = place.trial(trial).trace
        return read_rank_trace(file) if file.is_file() else None

    if (ranks := recommended_ranks(answer, trace_of)) is not None:
        for sentence in rank_sentences(ranks):
            console.print(Text(sentence))


def _cells(row: Row, answer: Answer) -> list[str]:
    quality = answer.quality.name
    return [
        row.name,
        plus_minus(row.values[quality], row.ci95) if math.isfinite(row.ci95) else f"{row.values[quality]:.2f}",
        "" if row.versus_best.value == 0 else plus_minus(row.versus_best.value, row.versus_best.ci95),
        "" if row.cost is None else count(row.cost) if answer.cost_name not in UNITS else f"{row.cost:.3g}",
        "" if row.test is None else f"{row.test:.2f}",
        ",".join(map(str, row.seeds)),
        _mark(row),
    ]


def _mark(row: Row) -> str:
    return "take this" if row.recommended else "front" if row.on_front else row.role if row.role == "control" else ""
