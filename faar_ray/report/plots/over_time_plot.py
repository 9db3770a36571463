"""The front's hypervolume, or the best value, by trials that ended and by epochs that were spent.

Optuna's `plot_hypervolume_history` has trials alone on its axis, so that early stopping gains nothing there, and raw
volumes, which nobody can compare between searches.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path

from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator, PercentFormatter

from faar_ray.report.plots.style import SEARCHED
from faar_ray.report.statistics.over_time import OverTime
from faar_ray.report.words.wording import axis_label
from faar_ray.tracking.plots.drawing import FAINT, INK, bare, save


def plot_over_time(traced: OverTime, values: Mapping[str, float], out: Path) -> None:
    """Draw it (PNG): a step whenever a trial moved the front.

    Args:
        traced: the search.
        values: of the only objective, by trial id, shown as points; ignored with several.
        out: the file.
    """
    figure = Figure(figsize=(8.6, 3.4), layout="constrained")
    left, right = figure.subplots(1, 2, sharey=True)
    ended = range(1, len(traced.steps) + 1)
    _steps(left, traced, ended, values)
    _steps(right, traced, [step.epochs for step in traced.steps], values)
    left.set_xlabel("trials ended", fontsize=9, color=INK)
    right.set_xlabel("epochs spent", fontsize=9, color=INK)
    if traced.reference:
        left.set_ylabel("hypervolume of the front\n(of that of the ideal point)", fontsize=9, color=INK)
        left.yaxis.set_major_formatter(PercentFormatter(1.0))
        left.set_ylim(0, 1.05 * max(step.found or 0.0 for step in traced.steps) / traced.box)
    else:
        left.set_ylabel(axis_label(traced.objectives[0].name), fontsize=9, color=INK)
        handles, names = left.get_legend_handles_labels()
        figure.legend(handles, names, loc="outside upper left", ncols=4, frameon=False, fontsize=8, labelcolor=INK)
    save(figure, out)


def _steps(ax: Axes, traced: OverTime, places: Sequence[int], values: Mapping[str, float]) -> None:
    bare(ax)
    ax.xaxis.set_major_locator(MaxNLocator(integer=True))
    known = [(x, step.found) for x, step in zip(places, traced.steps, strict=True) if step.found is not None]
    shown = [(x, volume / traced.box) for x, volume in known]
    if not traced.reference:
        _points(ax, traced, places, values)
    x, y = zip(*shown, strict=True)
    ax.step(x, y, where="post", color=SEARCHED, linewidth=1.8, label="best so far")
    moved = [i for i in range(len(y)) if i == 0 or y[i] != y[i - 1]]
    if len(moved) <= 40:
        ax.plot([x[i] for i in moved], [y[i] for i in moved], "o", color=SEARCHED, markersize=4)
    ax.plot(x[-1], y[-1], "|", color=SEARCHED, markersize=8)
    ax.set_xlim(left=0)


def _points(ax: Axes, traced: OverTime, places: Sequence[int], values: Mapping[str, float]) -> None:
    """Every finished trial; those outside the constraints crossed."""
    for inside, marker, name in ((True, "o", "finished trial"), (False, "x", "outside the constraints")):
        at = [
            (x, values[step.trial_id])
            for x, step in zip(places, traced.steps, strict=True)
            if step.state == "COMPLETE" and step.feasible is inside and step.trial_id in values
        ]
        if at:
            x, y = zip(*at, strict=True)
            ax.scatter(x, y, s=18, marker=marker, color=FAINT, linewidths=1.2, label=name)
