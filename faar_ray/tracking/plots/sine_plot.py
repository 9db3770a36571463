"""A sine trace as a picture: how much the tasks' weights sin(omega_t M) differ, and their ranks beside M's."""

from __future__ import annotations

from collections.abc import Sequence
from math import isfinite
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
from matplotlib import colormaps
from matplotlib.axes import Axes
from matplotlib.colors import Normalize
from matplotlib.figure import Figure
from matplotlib.layout_engine import ConstrainedLayoutEngine
from matplotlib.ticker import LogLocator, MaxNLocator, NullLocator, StrMethodFormatter
from numpy.typing import NDArray

from faar_ray.tracking.plots.drawing import EMPTY, FAINT, INK, WARM, bare, save
from faar_ray.tracking.plots.layer_map import (
    ROW,
    TITLE,
    Row,
    Site,
    cell_means,
    draw_cells,
    epochs_of,
    label_layers,
    sites_of,
)

ALIKE = 0.9  # a mean cosine above which the tasks have all but the same weights
COLOURS = colormaps["viridis"].with_extremes(over=WARM)
HUES = ("#2a6f97", "#c0398b", "#2f9e66", "#b8860b", "#6a4fb3", "#5b6470")
MARKS = ("o", "s", "^", "D", "v", "P")
ACROSS, KEYS, TOP, BAR, WORDS = 8.6, 0.2, 1.5, 0.09, 2.3  # inches: width, and heights beside the layers'
MOST_MARKS = 12  # on a line
KEY: dict[str, Any] = {"frameon": False, "fontsize": 8, "labelcolor": INK, "borderpad": 0.2}
FITS = 0.24  # inches of cell width that a printed cosine needs


def plot_sine_trace(table: pa.Table, out: Path, title: str) -> None:
    """Draw one trial's sine trace (PNG).

    Above, by epoch: each task's omega and, where measured, the cosines of the tasks' gradients. Below, a row per
    layer: with several tasks the cosines of their weights, and the effective ranks after the last epoch.

    Args:
        table: rows of `sine_trace.SCHEMA`, of one trial; at least one.
        out: the picture, written atomically.
        title: above the panels.
    """
    rows = table.to_pylist()
    epochs, sites, tasks = epochs_of(rows), sites_of(rows), list(dict.fromkeys(r["task"] for r in rows))
    has_gradients, has_tasks = (any(r[column] is not None for r in rows) for column in ("gradient_cosine", "cosine"))

    heights = (KEYS, TOP, ROW * len(sites), BAR)
    figure = Figure(
        figsize=(max(ACROSS, TITLE * len(title)), sum(heights) + WORDS), layout=ConstrainedLayoutEngine(wspace=0.05)
    )
    figure.suptitle(title, fontsize=10, color=INK, fontweight="bold", x=0.01, ha="left")
    grid = figure.add_gridspec(4, 2, height_ratios=heights)
    _keys(figure.add_subplot(grid[0, :]), tasks)

    omega = figure.add_subplot(grid[1, 0] if has_gradients else grid[1, :])
    _by_epoch(omega, rows, "omega", tasks, epochs)
    _titled(omega, "frequency ω, mean and range over layers", "epoch")
    if has_gradients:
        gradients = figure.add_subplot(grid[1, 1])
        gradients.axhline(0, color=FAINT, linewidth=0.9)
        _by_epoch(gradients, rows, "gradient_cosine", tasks, epochs)
        _titled(gradients, "cosine with the other tasks' gradients", "epoch")

    ranks = figure.add_subplot(grid[2, 1] if has_tasks else grid[2, :])
    _ranks(ranks, [r for r in rows if r["epoch"] == epochs[-1]], tasks, sites)
    _titled(ranks, f"effective rank after epoch {epochs[-1]}", "components (log scale)")
    label_layers([ranks], sites)
    if has_tasks:
        cosines = figure.add_subplot(grid[2, 0], sharey=ranks)
        _cosines(cosines, figure.add_subplot(grid[3, 0]), cell_means(rows, "cosine", sites, epochs), epochs)
        _titled(cosines, "mean cosine between the tasks' weights", "epoch")
        label_layers([cosines], sites)
        ranks.tick_params(labelleft=False)
    save(figure, out)


def _titled(ax: Axes, title: str, below: str) -> None:
    ax.set_title(title, fontsize=8.5, color=INK, loc="left")
    ax.set_xlabel(below, fontsize=8.5, color=INK)


def _by_epoch(ax: Axes, rows: Sequence[Row], column: str, tasks: Sequence[str], epochs: Sequence[int]) -> None:
    """A line per task through the means over layers, and the range over layers."""
    bare(ax)
    for k, task in enumerate(tasks):
        values: dict[int, list[float]] = {}
        for r in rows:
            if r["task"] == task and r[column] is not None and isfinite(r[column]):
                values.setdefault(r["epoch"], []).append(r[column])

        shift = 0.08 * (k - (len(tasks) - 1) / 2) if len(values) == 1 else 0  # ranges at one epoch hide each other
        x = [epoch + shift for epoch in sorted(values)]
        low, mean, high = ([float(f(values[epoch])) for epoch in sorted(values)] for f in (min, np.mean, max))
        if len(values) == 1:
            ax.vlines(x, low, high, color=_hue(k), linewidth=1.2)
        else:
            ax.fill_between(x, low, high, color=_hue(k), alpha=0.15, linewidth=0)
        every = max(1, len(x) // MOST_MARKS)
        ax.plot(x, mean, color=_hue(k), marker=_mark(k), markersize=3.5, linewidth=1.5, markevery=every)

    ax.set_xlim(epochs[0] - 0.5, epochs[-1] + 0.5)  # as the heat map's
    ax.xaxis.set_major_locator(MaxNLocator(integer=True, nbins=min(len(epochs), 8), min_n_ticks=1))
    ax.tick_params(labelsize=7)


def _cosines(ax: Axes, bar_ax: Axes, cells: NDArray[np.float64], epochs: Sequence[int]) -> None:
    """The heat map, and its colour bar in `bar_ax`."""
    norm = Normalize(np.nanmin(cells, initial=0.0), ALIKE)
    image = draw_cells(ax, cells, epochs, COLOURS, norm, ".2f" if 0.36 * ACROSS / len(epochs) >= FITS else "")
    bar = ax.figure.colorbar(image, cax=bar_ax, orientation="horizontal", extend="max", extendrect=True, extendfrac=0.1)
    bar.set_ticks([0, 0.3, 0.6, ALIKE])
    bar.set_label(f"orange, above {ALIKE}: the tasks have all but the same weights", fontsize=7.5, color=INK)
    bar.outline.set_visible(False)
    bar_ax.tick_params(labelsize=7, length=2, color=FAINT)


def _ranks(ax: Axes, rows: Sequence[Row], tasks: Sequence[str], sites: Sequence[Site]) -> None:
    """For each layer: rank and effective rank of M, and the effective ranks of the tasks' weights."""
    ax.set_facecolor(EMPTY)
    ax.spines[:].set_visible(False)
    for i, site in enumerate(sites):
        layer = [r for r in rows if (r["stage"], r["block"], r["layer"]) == site]
        values = [x for r in layer for x in (r["effective_rank"], r["effective_rank_task"]) if isfinite(x)]
        if values:
            ax.plot([min(values), max(values)], [i, i], color=FAINT, linewidth=0.8)
        for r in layer:
            k = tasks.index(r["task"])
            base = (
                *ax.plot(r["effective_rank"], i, "o", markerfacecolor="white", markeredgecolor=INK, markersize=4.5),
                *ax.plot(r["rank"], i, "|", color=INK, markersize=6),
            )
            ax.plot(r["effective_rank_task"], i, _mark(k), color=_hue(k), markersize=4)

    ax.set_xscale("log")
    left, right = ax.get_xlim()
    ax.set_xlim(min(left, right / 6), right)
    ax.xaxis.set_major_locator(LogLocator(subs=(1, 2, 5)))
    ax.xaxis.set_minor_locator(NullLocator())
    ax.xaxis.set_major_formatter(StrMethodFormatter("{x:g}"))
    ax.grid(axis="x", color="white", linewidth=0.9)
    ax.set_axisbelow(True)
    ax.tick_params(labelsize=7, length=0, colors=INK)
    ax.set_ylim(len(sites) - 0.5, -0.5)
    beside: dict[str, Any] = {"loc": "lower right", "bbox_to_anchor": (1, 1), "borderaxespad": 0.4}  # the title
    ax.legend(base, ("base M", "rank of M"), ncols=2, handlelength=1, **beside, **KEY)


def _keys(ax: Axes, tasks: Sequence[str]) -> None:
    """The tasks' legend, in a strip of its own."""
    for k, task in enumerate(tasks):
        name = task.replace("_", " ")
        ax.plot([], [], color=_hue(k), marker=_mark(k), markersize=4, linewidth=1.5, label=name)
    ax.set_axis_off()
    ax.legend(loc="center left", ncols=len(tasks), borderaxespad=0, **KEY)


def _hue(k: int) -> str:
    return HUES[k % len(HUES)]


def _mark(k: int) -> str:
    return MARKS[k % len(MARKS)]
