"""Two ways of searching over the epochs that they spent."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import numpy as np
from matplotlib.figure import Figure
from matplotlib.ticker import PercentFormatter

from faar_ray.bench.stock.compare import OURS, STOCK, Curve, interval
from faar_ray.report.plots.style import SEARCHED
from faar_ray.tracking.plots.drawing import INK, WARM, bare, save

LOOK = {OURS: (SEARCHED, "faar_ray"), STOCK: (WARM, "Ray Tune: OptunaSearch + ASHA")}


def plot_curves(curves: Sequence[Curve], epochs: int, out: Path) -> None:
    """Draw means over seeds as steps, their 95% intervals as bands (PNG).

    Args:
        curves: of both ways, all seeds.
        epochs: that every search spent; nothing is drawn beyond.
        out: the file.
    """
    figure = Figure(figsize=(7.2, 3.6), layout="constrained")
    ax = figure.subplots()
    bare(ax)
    spent = range(epochs + 1)
    for search, (colour, name) in LOOK.items():
        own = [curve for curve in curves if curve.run.search == search]
        middle, half = np.array([interval([curve.at(x) for curve in own]) for x in spent]).T
        ax.step(spent, middle, where="post", color=colour, linewidth=1.8, label=f"{name}, mean of {len(own)} seeds")
        if np.isfinite(half).all():
            low, high = np.clip(middle - half, 0, 1), np.clip(middle + half, 0, 1)
            ax.fill_between(spent, low, high, step="post", color=colour, alpha=0.16, linewidth=0)
    ax.set_xlim(0, epochs)
    ax.set_ylim(bottom=0)
    ax.yaxis.set_major_formatter(PercentFormatter(1.0))
    ax.set_xlabel("epochs spent by all trials", fontsize=9, color=INK)
    ax.set_ylabel("hypervolume of the front\n(of that of the ideal point)", fontsize=9, color=INK)
    ax.legend(loc="lower right", frameon=False, fontsize=8, labelcolor=INK)
    save(figure, out)
