"""The front: quality against cost, with noise bars; controls and early-stopped trials beside it."""

from __future__ import annotations

import math
from collections.abc import Sequence
from pathlib import Path

from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import EngFormatter, LogLocator, NullFormatter
from matplotlib.transforms import Bbox

from faar_ray.records import TrialResult
from faar_ray.report.answer import Answer
from faar_ray.report.style import CONTROL
from faar_ray.report.table import Row
from faar_ray.report.wording import axis, label
from faar_ray.tracking.drawing import DPI, INK, MUTED, bare, save

SEARCHED = "#2a6f97"
KEYS = ("search, mean over seeds", "control", "recommended", "stopped early (too large and too weak to compare)")
BESIDE = (
    *((9, -9, "left"), (9, 9, "left"), (-9, 9, "right"), (-9, -9, "right"), (0, -16, "center"), (0, 16, "center")),
    *((9, -22, "left"), (9, 22, "left"), (-9, 22, "right"), (-9, -22, "right")),
)
LOG_FROM = 4.0  # ratio of dearest to cheapest from which the cost axis is logarithmic


def plot_front(found: Answer, results: Sequence[TrialResult], out: Path) -> bool:
    """Draw the front (PNG); False where there is nothing to place (no finished configuration, or no cost)."""
    rows = [row for row in found.rows if row.cost]
    if not rows or not found.cost_name:
        return False
    figure = Figure(figsize=(8.6, 4.9), dpi=DPI, layout="constrained")
    ax = figure.subplots()
    bare(ax)
    quality = found.quality.name
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
    costs = [_x(r) for r in rows]
    if max(costs) / min(costs) > LOG_FROM:
        ax.set_xscale("log")
        ax.xaxis.set_major_locator(LogLocator(subs=(1, 2, 5)))
        ax.xaxis.set_minor_formatter(NullFormatter())
    ax.xaxis.set_major_formatter(EngFormatter(sep=""))
    ax.margins(x=0.17)
    _stopped(ax, results, found)
    ax.set_xlabel(label(found.cost_name), fontsize=9, color=INK)
    ax.set_ylabel(axis(quality), fontsize=9, color=INK)
    handles, names = ax.get_legend_handles_labels()
    order = sorted(range(len(names)), key=lambda i: KEYS.index(names[i]))
    figure.legend(
        [handles[i] for i in order],
        [names[i] for i in order],
        loc="outside upper left",
        ncols=4,
        frameon=False,
        fontsize=8,
        labelcolor=INK,
        handletextpad=0.3,
    )
    _names(figure, ax, rows, quality)
    save(figure, out)
    return True


def _x(row: Row) -> float:
    return row.cost or 0.0


def _points(ax: Axes, rows: Sequence[Row], quality: str, marker: str, colour: str, name: str) -> None:
    if not rows:
        return
    known = all(math.isfinite(r.error) for r in rows)
    bars = [r.error for r in rows] if known else None
    ax.errorbar(
        [_x(r) for r in rows],
        [r.values[quality] for r in rows],
        yerr=bars,
        fmt=marker,
        color=colour,
        markersize=6.5,
        capsize=3,
        elinewidth=1.2,
        linestyle="none",
        label=name,
        zorder=3,
    )


def _stopped(ax: Axes, results: Sequence[TrialResult], found: Answer) -> None:
    """Early-stopped trials, hollow, where they stood; at the edge where they would stretch the axis."""
    (low, high), quality = ax.get_ylim(), found.quality.name
    low, high = low - 0.15 * (high - low), high + 0.08 * (high - low)
    ax.set_ylim(low, high)
    named = False
    for r in results:
        x, y = r.metrics.get(found.cost_name), r.metrics.get(quality)
        if r.state == "PRUNED" and x and y is not None and math.isfinite(y):
            inside = low <= y <= high
            edge = low + 0.02 * (high - low) if y < low else high - 0.02 * (high - low)
            ax.plot(
                x,
                y if inside else edge,
                "o" if inside else ("v" if y < low else "^"),
                markerfacecolor="white",
                markeredgecolor=MUTED,
                markersize=6,
                clip_on=False,
                linestyle="none",
                label=None if named else KEYS[3],
            )
            named = True


def _names(figure: Figure, ax: Axes, rows: Sequence[Row], quality: str) -> None:
    """Names beside the points, where they cover neither another name nor a point nor leave the axes."""
    figure.draw_without_rendering()
    figure.set_layout_engine("none")  # places are final from here on
    inside = ax.get_window_extent()
    points = ax.transData.transform([(_x(r), r.values[quality]) for r in rows])
    taken = [Bbox.from_bounds(x - 16, y - 16, 32, 32) for x, y in points]
    for row in sorted(rows, key=lambda row: not row.recommended):  # the answer has first choice
        for dx, dy, side in BESIDE:
            text = ax.annotate(
                row.name, (_x(row), row.values[quality]), (dx, dy), textcoords="offset points", fontsize=7.5, ha=side,
                va="center", color=CONTROL if row.role != "trial" else INK,
            )  # fmt: skip
            box = text.get_window_extent()
            if inside.x0 < box.x0 and box.x1 < inside.x1 and not any(box.overlaps(other) for other in taken):
                taken.append(box)
                break
            text.remove()
