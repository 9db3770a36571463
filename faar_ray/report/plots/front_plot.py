"""The front: quality against cost, with noise bars; controls and early-stopped trials beside it."""

from __future__ import annotations

import math
from collections.abc import Sequence
from pathlib import Path

from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import EngFormatter, LogLocator, NullFormatter

from faar_ray.objectives.constraint import Constraint, feasible
from faar_ray.records import FOUND, TrialResult
from faar_ray.report.plots.names import Named, Offset, place_names
from faar_ray.report.plots.style import CONTROL, KNEE, SEARCHED
from faar_ray.report.statistics.table import Row
from faar_ray.report.words.answer import Answer
from faar_ray.report.words.wording import axis_label, label
from faar_ray.tracking.plots.drawing import DPI, FAINT, INK, MUTED, bare, save

KEYS = ("search, mean over seeds", "control", "recommended", "knee", "breaks a constraint", "stopped early")
MOST_NAMES = 25
"""With more configurations only those of the front, the recommended one and controls are named."""
BESIDE: tuple[Offset, ...] = (
    *((9, -9, "left"), (9, 9, "left"), (-9, 9, "right"), (-9, -9, "right"), (0, -16, "center"), (0, 16, "center")),
    *((9, -22, "left"), (9, 22, "left"), (-9, 22, "right"), (-9, -22, "right")),
)
LOG_FROM = 4.0
"""Ratio of the highest to the lowest cost from which the cost axis is logarithmic."""


def plot_front(answer: Answer, results: Sequence[TrialResult], limits: Sequence[Constraint], out: Path) -> bool:
    """Draw the front (PNG); False without a finished configuration or a cost."""
    rows = [row for row in answer.rows if row.cost]
    if not rows or not answer.cost_name:
        return False
    figure = Figure(figsize=(8.6, 4.9), dpi=DPI, layout="constrained")
    ax = figure.subplots()
    bare(ax)
    quality = answer.quality.name
    front = sorted((r for r in rows if r.on_front), key=lambda r: r.cost or 0.0)
    ax.plot([_x(r) for r in front], [r.values[quality] for r in front], color=SEARCHED, alpha=0.35, linewidth=1.5)
    _points(ax, [r for r in rows if r.role == "trial"], quality, "o", SEARCHED, KEYS[0])
    _points(ax, [r for r in rows if r.role != "trial"], quality, "D", CONTROL, KEYS[1])
    pick = [r for r in rows if r.recommended]
    ax.scatter(
        [_x(r) for r in pick],
        [r.values[quality] for r in pick],
        s=190,
        facecolors="none",
        edgecolors=INK,
        linewidths=1.2,
        label=KEYS[2],
        zorder=4,
    )
    knee = [r for r in rows if answer.knee and r.config_id == answer.knee.config_id]
    ax.scatter(
        [_x(r) for r in knee],
        [r.values[quality] for r in knee],
        s=210,
        marker="s",
        facecolors="none",
        edgecolors=KNEE,
        linewidths=1.4,
        label=KEYS[3] if knee else None,
        zorder=4,
    )
    costs = [_x(r) for r in rows]
    if max(costs) / min(costs) > LOG_FROM:
        ax.set_xscale("log")
        ax.xaxis.set_major_locator(LogLocator(subs=(1, 2, 5)))
        ax.xaxis.set_minor_formatter(NullFormatter())
    ax.xaxis.set_major_formatter(EngFormatter(sep=""))
    ax.margins(x=0.17)
    _beside(ax, answer, results, limits)
    ax.set_xlabel(label(answer.cost_name), fontsize=9, color=INK)
    ax.set_ylabel(axis_label(quality), fontsize=9, color=INK)
    handles, names = ax.get_legend_handles_labels()
    order = sorted(range(len(names)), key=lambda i: KEYS.index(names[i]))
    figure.legend(
        [handles[i] for i in order],
        [names[i] for i in order],
        loc="outside upper left",
        ncols=len(names),
        frameon=False,
        fontsize=8,
        labelcolor=INK,
        handletextpad=0.3,
        columnspacing=1.4,
    )
    few = len(rows) <= MOST_NAMES
    landmarks = [*pick, *knee, *front[:1], *front[-1:], *(r for r in rows if r.role != "trial")]
    _names(figure, ax, rows, rows if few else [r for r in rows if r in landmarks], quality)
    save(figure, out)
    return True


def _x(row: Row) -> float:
    return row.cost or 0.0


def _points(ax: Axes, rows: Sequence[Row], quality: str, marker: str, colour: str, name: str) -> None:
    if not rows:
        return
    known = all(math.isfinite(r.ci95) for r in rows)
    bars = [r.ci95 for r in rows] if known else None
    ax.errorbar(
        [_x(r) for r in rows],
        [r.values[quality] for r in rows],
        yerr=bars,
        fmt=marker,
        color=colour,
        markersize=6.5 if len(rows) <= MOST_NAMES else 4.5,
        markeredgecolor="white" if len(rows) > MOST_NAMES else colour,
        markeredgewidth=0.4,
        capsize=3,
        elinewidth=1.2,
        linestyle="none",
        label=name,
        zorder=3,
    )


def _beside(ax: Axes, answer: Answer, results: Sequence[TrialResult], limits: Sequence[Constraint]) -> None:
    """Trials that are not compared, at their last values; outliers are drawn at the edge of the axes."""
    (low, high), quality = ax.get_ylim(), answer.quality.name
    low, high = low - 0.15 * (high - low), high + 0.08 * (high - low)
    ax.set_ylim(low, high)
    places: dict[tuple[bool, str], list[tuple[float, float]]] = {}
    for r in results:
        x, y = r.metrics.get(answer.cost_name), r.metrics.get(quality)
        outside = r.state == "COMPLETE" and r.role in FOUND and not feasible(r.metrics, limits)
        if (r.state == "PRUNED" or outside) and x and y is not None and math.isfinite(y):
            edge = min(max(y, low + 0.02 * (high - low)), high - 0.02 * (high - low))
            marker = ("X" if outside else "o") if edge == y else "v" if y < edge else "^"
            places.setdefault((outside, marker), []).append((x, edge))
    labelled = set[bool]()
    for (outside, marker), points in places.items():
        ax.plot(
            *zip(*points, strict=True),
            marker,
            markerfacecolor=FAINT if outside else "white",
            markeredgecolor="white" if outside else MUTED,
            markersize=7 if outside else 6,
            clip_on=False,
            linestyle="none",
            label=None if outside in labelled else KEYS[4] if outside else KEYS[5],
        )
        labelled.add(outside)


def _names(figure: Figure, ax: Axes, rows: Sequence[Row], named: Sequence[Row], quality: str) -> None:
    """Names beside the points where there is room, the recommended one's first."""
    points = [
        Named(row.name * (row in named), _x(row), row.values[quality], CONTROL if row.role != "trial" else INK)
        for row in sorted(rows, key=lambda row: not row.recommended)
    ]
    place_names(figure, ax, points, BESIDE)
