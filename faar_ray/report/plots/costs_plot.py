"""Quality over what it costs: one panel over trained parameters, one over the time of a step."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import EngFormatter, LogLocator, NullFormatter

from faar_ray.report.plots.names import Named, place_names, rings
from faar_ray.tracking.plots.drawing import DPI, GRID, INK, bare, save

COLOURS = ("#000000", "#cc79a7", "#009e73", "#e69f00", "#d55e00", "#56b4e9", "#0072b2", "#6b727c", "#22262b")
"""Okabe and Ito's, which the colour-blind tell apart, without the yellow, which is faint on white; grey at the end."""
MARKERS = "DPs^ovXh*"
BARS = "#c4c9d0"
HEIGHTS = (5.4, 7.0, 9.0, 12.0)
"""Inches: the first one that has room for all names."""


@dataclass(frozen=True)
class Costed:
    """A configuration."""

    name: str
    family: str
    """It has a colour and a marker."""
    quality: float
    ci95: float
    """Half width of the 95% interval; infinite where it is unknown."""
    parameters: float
    step: float
    """Time of a step."""


def plot_costs(
    points: Sequence[Costed], families: Sequence[str], quality_label: str, step_label: str, out: Path
) -> bool:
    """Draw both panels (PNG), on one axis of quality, every name beside its point; False without points.

    Args:
        points: what is compared.
        families: all that there are, also without points here: their order gives their colours.
        quality_label: of the upright axis.
        step_label: of the axis of steps.
        out: file.
    """
    if not points:
        return False
    for height in HEIGHTS:
        figure, left_out = _drawn(points, families, quality_label, step_label, height)
        if not left_out:
            break
    save(figure, out)
    return True


def _drawn(
    points: Sequence[Costed], families: Sequence[str], quality_label: str, step_label: str, height: float
) -> tuple[Figure, list[str]]:
    """The figure, and the names that it had no room for."""
    figure = Figure(figsize=(11.0, height), dpi=DPI, layout="constrained")
    left, right = figure.subplots(1, 2, sharey=True)
    for ax in (left, right):
        bare(ax)
        ax.axhline(0, color=GRID, linewidth=1.4, zorder=0)
    for index, family in enumerate(families):
        if members := [point for point in points if point.family == family]:
            _family(left, right, members, index)

    left.set_xscale("log")
    left.xaxis.set_major_locator(LogLocator(subs=(1, 2, 5)))
    left.xaxis.set_minor_formatter(NullFormatter())
    left.xaxis.set_major_formatter(EngFormatter(sep=""))
    left.set_xlabel("trainable parameters", fontsize=9, color=INK)
    right.set_xlabel(step_label, fontsize=9, color=INK)
    left.set_ylabel(quality_label, fontsize=9, color=INK)
    for ax in (left, right):
        ax.margins(x=0.2, y=0.06)
    handles, names = left.get_legend_handles_labels()
    figure.legend(
        handles, names, loc="outside upper left", ncols=len(names), frameon=False, fontsize=8, labelcolor=INK,
        handletextpad=0.3, columnspacing=1.4,
    )  # fmt: skip

    left_out = []
    for ax, costs in ((left, [p.parameters for p in points]), (right, [p.step for p in points])):
        named = [Named(p.name, cost, p.quality) for p, cost in zip(points, costs, strict=True)]
        left_out += place_names(figure, ax, named, list(rings()), led=True)
    return figure, left_out


def _family(left: Axes, right: Axes, points: Sequence[Costed], index: int) -> None:
    """Points of one family in both panels, with intervals where all are known."""
    bars = [p.ci95 for p in points] if all(math.isfinite(p.ci95) for p in points) else None
    for ax, costs in ((left, [p.parameters for p in points]), (right, [p.step for p in points])):
        ax.errorbar(
            costs, [p.quality for p in points], yerr=bars, fmt=MARKERS[index % len(MARKERS)],
            color=COLOURS[index % len(COLOURS)], ecolor=BARS, elinewidth=0.8, markersize=6, linestyle="none",
            label=points[0].family, zorder=3,
        )  # fmt: skip
