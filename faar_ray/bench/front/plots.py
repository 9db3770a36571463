"""Pictures of the studies."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import EngFormatter, LogLocator, MaxNLocator, NullFormatter, PercentFormatter

from faar_ray.bench.front.rows import VAL, Row, cut_rows, of_kind
from faar_ray.bench.front.volume import FAAR, FIXED, ONLY_CUT, Curve
from faar_ray.report.plots.style import KNEE, SEARCHED
from faar_ray.report.statistics.noise import Observation, SeedModel, mean_of
from faar_ray.report.words.wording import axis_label
from faar_ray.tracking.plots.drawing import FAINT, INK, WARM, bare, save

COLOURS = {"spectral": SEARCHED, "fixed": WARM, "pdrs": KNEE}
VARIANTS = (KNEE, "#c1679b", "#8a6d00", SEARCHED, "#3c9d8f", INK, WARM)
MARKS = {"spectral": "o", "fixed": "D", "pdrs": "s"}


def plot_sizes(rows: Sequence[Row], front: Sequence[Row], curves: Sequence[Curve], out: Path) -> None:
    """Quality over size with the noise that remains within a seed, and hypervolume over epochs (PNG).

    Args:
        rows: all.
        front: those of the front, which are joined by a line.
        curves: of hypervolume.
        out: the file.
    """
    figure = Figure(figsize=(10.4, 4.3), layout="constrained")
    left, right = figure.subplots(1, 2, width_ratios=(1.25, 1))
    noise = SeedModel(VAL, [Observation(r.config.config_id, s, v) for r in rows for s, v in r.by_seed(VAL).items()])
    if len(front) > 1:
        _line(left, cut_rows(rows), noise, "cut, nothing trained after", "o", SEARCHED, dashed=True)
        _line(left, front, noise, "front: small sizes forked", "o", SEARCHED)
    for kind, name in (("fixed", "fixed ranks"), ("pdrs", "FAAR")):
        _line(left, of_kind(rows, kind), noise, name, MARKS[kind], COLOURS[kind])
    _size_axes(left)
    _volumes(right, curves)
    handles, names = left.get_legend_handles_labels()
    figure.legend(handles, names, loc="outside upper left", ncols=4, frameon=False, fontsize=8.5, labelcolor=INK)
    save(figure, out)


def _line(
    ax: Axes, rows: Sequence[Row], noise: SeedModel, name: str, mark: str, colour: str, *, dashed: bool = False
) -> None:
    """Means over seeds, joined; bars are the noise that remains when a seed's own effect is taken out."""
    if not rows:
        return
    halves = [noise.ci95(row.config.config_id) for row in rows]
    bars = halves if not dashed and all(map(math.isfinite, halves)) else None
    ax.errorbar(
        [row.size for row in rows],
        [noise.mean(row.config.config_id) for row in rows],
        yerr=bars, fmt=mark, color=colour, markersize=3.5 if dashed else 5.5, capsize=2.5, elinewidth=1.1,
        linestyle="--" if dashed else "-", linewidth=1.0 if dashed else 1.4, alpha=0.7 if dashed else 1.0, label=name,
    )  # fmt: skip


def _size_axes(ax: Axes) -> None:
    bare(ax)
    ax.set_xscale("log")
    ax.xaxis.set_major_locator(LogLocator(subs=(1, 2, 5)))
    ax.xaxis.set_minor_formatter(NullFormatter())
    ax.xaxis.set_major_formatter(EngFormatter(sep=""))
    ax.set_xlabel("adapter parameters", fontsize=9, color=INK)
    ax.set_ylabel(axis_label(VAL), fontsize=9, color=INK)


def _volumes(ax: Axes, curves: Sequence[Curve]) -> None:
    bare(ax)
    kinds = {FIXED: "fixed", FAAR: "pdrs"}
    last = max((curve.epochs[-1] for curve in curves), default=1.0)
    for curve in curves:
        kind = kinds.get(curve.name, "spectral")
        means = [mean_of([*found.values()]) for found in curve.found]
        x = np.array([*curve.epochs, last])
        middle = np.array([*(mean.value for mean in means), means[-1].value])
        half = np.array([*(mean.ci95 for mean in means), means[-1].ci95])
        aside = curve.name == ONLY_CUT
        dashes, width = ("--", 1.0) if aside else ("-", 1.6)
        ax.step(x, middle, where="post", color=COLOURS[kind], linestyle=dashes, linewidth=width)
        ax.plot(curve.epochs, middle[:-1], MARKS[kind], color=COLOURS[kind], markersize=3 if aside else 4)
        if np.isfinite(half).all() and not aside:
            low, high = np.clip(middle - half, 0, 1), np.clip(middle + half, 0, 1)
            ax.fill_between(x, low, high, step="post", color=COLOURS[kind], alpha=0.13, linewidth=0)
    ax.set_xlim(0, last * 1.04)
    ax.xaxis.set_major_locator(MaxNLocator(steps=[3, 6, 10], integer=True))
    ax.yaxis.set_major_formatter(PercentFormatter(1.0, decimals=0))
    ax.set_xlabel("epochs trained", fontsize=9, color=INK)
    ax.set_ylabel("hypervolume of the front", fontsize=9, color=INK)


def plot_searches(traces: Mapping[str, Mapping[int, Any]], out: Path) -> None:
    """Hypervolume over epochs of both searches: every seed thin, the mean thick (PNG).

    Args:
        traces: by way of searching, ours first, then by seed.
        out: the file.
    """
    figure = Figure(figsize=(7.6, 4.0), layout="constrained")
    ax = figure.subplots()
    bare(ax)
    for (name, of), colour in zip(traces.items(), (SEARCHED, WARM), strict=True):
        for trace in of.values():
            ax.step((0, *trace.epochs), (0, *trace.volumes), where="post", color=colour, linewidth=0.8, alpha=0.4)
        x = np.linspace(0, max(trace.spent for trace in of.values()), 400)
        middle = [np.mean([trace.at(at) for trace in of.values()]) for at in x]
        ax.step(x, middle, where="post", color=colour, linewidth=2.0, label=f"{name}, mean of {len(of)} seeds")
    end = float(np.mean([trace.spent for trace in [*traces.values()][1].values()]))
    ax.axvline(end / 4, color=INK, linewidth=0.8, linestyle=(0, (2, 3)))
    ax.annotate("a quarter", (end / 4, 0.02), (4, 0), textcoords="offset points", fontsize=8, color=INK)
    ax.set_xlim(left=0)
    ax.set_ylim(0, 1)
    ax.yaxis.set_major_formatter(PercentFormatter(1.0, decimals=0))
    ax.set_xlabel("epochs trained by all trials", fontsize=9, color=INK)
    ax.set_ylabel("hypervolume of what was found", fontsize=9, color=INK)
    ax.legend(loc="lower right", frameon=False, fontsize=8.5, labelcolor=INK)
    save(figure, out)


def plot_variants(variants: Mapping[str, Sequence[Row]], fixed: Sequence[Row], out: Path) -> None:
    """Quality over size: a line over rho for each variant of FAAR, beside fixed ranks (PNG).

    Args:
        variants: rows by what is changed, the plain ones first.
        fixed: ranks, for comparison; may be empty.
        out: the file.
    """
    figure = Figure(figsize=(8.6, 4.6), layout="constrained")
    ax = figure.subplots()
    every = [*fixed, *(row for rows in variants.values() for row in rows)]
    noise = SeedModel(VAL, [Observation(r.config.config_id, s, v) for r in every for s, v in r.by_seed(VAL).items()])
    _line(ax, fixed, noise, "fixed ranks", "D", FAINT)
    for (name, rows), colour, mark in zip(variants.items(), VARIANTS, "so^vPX*", strict=False):
        _line(ax, rows, noise, f"FAAR, {name}", mark, colour)
    _size_axes(ax)
    figure.legend(
        *ax.get_legend_handles_labels(), loc="outside upper left", ncols=2, frameon=False, fontsize=8, labelcolor=INK
    )
    save(figure, out)
