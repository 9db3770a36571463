"""Ranks by depth: mean final rank of each stage, a panel for the shared adapters and one per task."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path

import pyarrow as pa
import pyarrow.compute as pc
from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator

from faar_ray.report.statistics.table import Row
from faar_ray.tracking.plots.drawing import INK, bare, save

FOUR_ACROSS = 25
"""Longest name, in letters, with which four legend entries fit side by side."""


def plot_depth(traces: Mapping[str, pa.Table], rows: Sequence[Row], palette: Mapping[str, str], out: Path) -> bool:
    """Draw mean final ranks by stage (PNG), a line per configuration; False without traces of these rows."""
    ranks = {row.config_id: mean_ranks([traces[t] for t in row.trial_ids if t in traces]) for row in rows}
    tasks = sorted(dict.fromkeys(task for means in ranks.values() for task, _ in means), key=lambda t: t != "shared")
    if not tasks:
        return False
    figure = Figure(figsize=(8.6, 3.1), layout="constrained")
    axes = figure.subplots(1, len(tasks), sharey=True, squeeze=False)[0]
    for ax, task in zip(axes, tasks, strict=True):
        bare(ax)
        ax.set_title(task.replace("_", " "), fontsize=9, loc="left", color=INK)
        for row in rows:
            points = sorted((stage, rank) for (t, stage), rank in ranks[row.config_id].items() if t == task)
            if points:
                ax.plot(*zip(*points, strict=True), "o-", color=palette[row.config_id], markersize=4, linewidth=1.5)
        ax.xaxis.set_major_locator(MaxNLocator(integer=True, min_n_ticks=1))
    axes[0].set_ylim(bottom=0)
    axes[0].set_ylabel("mean final rank", fontsize=9, color=INK)
    figure.supxlabel("stage", fontsize=9, color=INK)
    shown = [row for row in rows if ranks[row.config_id]]
    handles = [axes[0].plot([], [], "o-", color=palette[row.config_id], markersize=4)[0] for row in shown]
    names = [row.name for row in shown]
    across = 4 if max(map(len, names), default=0) <= FOUR_ACROSS else 3
    figure.legend(handles, names, loc="outside upper left", ncols=across, frameon=False, fontsize=8)
    save(figure, out)
    return True


def mean_ranks(traces: Sequence[pa.Table]) -> dict[tuple[str, int], float]:
    """Mean rank after the last epoch by (task, stage), over adapters and trials."""
    last = [t.filter(pc.equal(t["epoch"], pc.max(t["epoch"]))) for t in traces if t.num_rows]
    if not last:
        return {}
    means = pa.concat_tables(last).group_by(["task", "stage"], use_threads=False).aggregate([("rank", "mean")])
    return {(row["task"], row["stage"]): row["rank_mean"] for row in means.to_pylist()}
