"""Pictures of the studies."""

from __future__ import annotations

import math
from collections.abc import Sequence
from pathlib import Path

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import EngFormatter, LogLocator, MaxNLocator, NullFormatter, PercentFormatter

from faar_ray.bench.front.rows import VAL, Row, of_kind
from faar_ray.bench.front.volume import Curve
from faar_ray.report.plots.style import KNEE, SEARCHED
from faar_ray.report.statistics.noise import Observation, SeedModel, mean_of
from faar_ray.report.words.wording import axis_label
from faar_ray.tracking.plots.drawing import INK, WARM, bare, save

COLOURS = {"spectral": SEARCHED, "fixed": WARM, "pdrs": KNEE}
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
    lines = [("front: cut, small sizes forked", "spectral", list(front))] if len(front) > 1 else []
    lines += [("fixed ranks", "fixed", of_kind(rows, "fixed")), ("FAAR", "pdrs", of_kind(rows, "pdrs"))]
    noise = SeedModel(VAL, [Observation(r.config.config_id, s, v) for r in rows for s, v in r.by_seed(VAL).items()])
    for place, (name, kind, chosen) in enumerate(lines):
        _line(left, chosen, noise, name, kind, place)
    _size_axes(left)
    _volumes(right, curves)
    handles, names = left.get_legend_handles_labels()
    figure.legend(handles, names, loc="outside upper left", ncols=4, frameon=False, fontsize=8.5, labelcolor=INK)
    save(figure, out)


def _line(ax: Axes, rows: Sequence[Row], noise: SeedModel, name: str, kind: str, place: int) -> None:
    if not rows:
        return
    shift = 1 + 0.012 * place  # bars of equal sizes stay apart
    halves = [noise.ci95(row.config.config_id) for row in rows]
    ax.errorbar(
        [row.size * shift for row in rows],
        [noise.mean(row.config.config_id) for row in rows],
        yerr=halves if all(map(math.isfinite, halves)) else None,
        fmt=MARKS[kind], color=COLOURS[kind], markersize=5.5, capsize=2.5, elinewidth=1.1, linestyle="-", linewidth=1.4,
        label=name,
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
    kinds = {"fixed ranks": "fixed", "FAAR": "pdrs"}
    last = max((curve.epochs[-1] for curve in curves), default=1.0)
    for curve in curves:
        kind = kinds.get(curve.name, "spectral")
        means = [mean_of([*found.values()]) for found in curve.found]
        x = np.array([*curve.epochs, last])
        middle = np.array([*(mean.value for mean in means), means[-1].value])
        half = np.array([*(mean.ci95 for mean in means), means[-1].ci95])
        ax.step(x, middle, where="post", color=COLOURS[kind], linewidth=1.6)
        ax.plot(curve.epochs, middle[:-1], MARKS[kind], color=COLOURS[kind], markersize=4)
        if np.isfinite(half).all():
            low, high = np.clip(middle - half, 0, 1), np.clip(middle + half, 0, 1)
            ax.fill_between(x, low, high, step="post", color=COLOURS[kind], alpha=0.13, linewidth=0)
    ax.set_xlim(0, last * 1.04)
    ax.xaxis.set_major_locator(MaxNLocator(steps=[3, 6, 10], integer=True))
    ax.yaxis.set_major_formatter(PercentFormatter(1.0, decimals=0))
    ax.set_xlabel("epochs trained", fontsize=9, color=INK)
    ax.set_ylabel("hypervolume of the front", fontsize=9, color=INK)
