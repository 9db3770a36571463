"""The front: quality against cost, with noise bars; controls and early-stopped trials beside it."""

from __future__ import annotations

import math
from collections.abc import Sequence
from pathlib import Path

from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import EngFormatter

from faar_ray.records import TrialResult
from faar_ray.report.answer import Answer
from faar_ray.report.style import CONTROL, INK, MUTED, bare, save
from faar_ray.report.table import Row
from faar_ray.report.wording import label

SEARCHED = "#2a6f97"
LOG_FROM = 4.0  # ratio of dearest to cheapest from which the cost axis is logarithmic


def plot_front(found: Answer, results: Sequence[TrialResult], out: Path) -> bool:
    """Draw the front (PNG); False where there is nothing to place (no finished configuration, or no cost)."""
    rows = [row for row in found.rows if row.cost]
    if not rows or not found.cost_name:
        return False
    figure = Figure(figsize=(8.6, 4.9), layout="constrained")
    ax = figure.subplots()
    bare(ax)
    quality = found.quality.name
    front = sorted((r for r in rows if r.on_front), key=lambda r: r.cost or 0.0)
    ax.plot([_x(r) for r in front], [r.values[quality] for r in front], color=SEARCHED, alpha=0.35, linewidth=1.5)
    _points(ax, [r for r in rows if r.role == "trial"], quality, "o", SEARCHED, "search, mean over seeds")
    _points(ax, [r for r in rows if r.role != "trial"], quality, "D", CONTROL, "control")
    pick = [r for r in rows if r.recommended]
    ax.scatter(
        [_x(r) for r in pick],
        [r.values[quality] for r in pick],
        s=190,
        facecolors="none",
        edgecolors=INK,
        linewidths=1.2,
        label="recommended",
        zorder=4,
    )
    costs = [_x(r) for r in rows]
    if max(costs) / min(costs) > LOG_FROM:
        ax.set_xscale("log")
    _stopped(ax, results, found)
    _names(ax, rows, quality)
    ax.xaxis.set_major_formatter(EngFormatter(sep=""))
    ax.xaxis.set_minor_formatter(EngFormatter(sep="") if max(costs) / min(costs) < 10 else "")
    ax.set_xlabel(label(found.cost_name), fontsize=9, color=INK)
    ax.set_ylabel(quality, fontsize=9, color=INK)
    figure.legend(loc="outside upper left", ncols=4, frameon=False, fontsize=8, labelcolor=INK, handletextpad=0.3)
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
                label=None if named else "stopped early (too large and too weak to compare)",
            )
            named = True


def _names(ax: Axes, rows: Sequence[Row], quality: str) -> None:
    """Names beside the points, above and below in turn."""
    for i, row in enumerate(sorted(rows, key=_x)):
        side = 1 if i % 2 else -1
        ax.annotate(
            row.name,
            (_x(row), row.values[quality]),
            (8, 9 * side),
            textcoords="offset points",
            fontsize=7.5,
            color=CONTROL if row.role != "trial" else INK,
            va="center",
        )
