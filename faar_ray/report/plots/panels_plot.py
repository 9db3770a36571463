"""A front that one plot cannot show: quality against every other objective, a panel each."""

from __future__ import annotations

import math
from collections.abc import Sequence
from pathlib import Path

from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import EngFormatter, MaxNLocator

from faar_ray.objectives.metrics import Objective
from faar_ray.report.plots.style import CONTROL, SEARCHED
from faar_ray.report.statistics.groups import is_cost
from faar_ray.report.statistics.table import Row
from faar_ray.report.words.answer import Answer
from faar_ray.report.words.wording import axis_label
from faar_ray.tracking.plots.drawing import FAINT, INK, bare, save

MOST_PANELS = 4


def is_two_objective(answer: Answer) -> bool:
    """Whether quality over one cost shows the whole front."""
    others = [goal for goal in answer.objectives if goal != answer.quality]
    return not others or (len(others) == 1 and is_cost(others[0].name) and others[0].goal == "minimize")


def plot_panels(answer: Answer, out: Path) -> bool:
    """Draw it (PNG); False where no configuration finished."""
    if not any(row.role == "trial" for row in answer.rows):
        return False
    others = [goal for goal in answer.objectives if goal != answer.quality][:MOST_PANELS]
    figure = Figure(figsize=(8.6, 3.9), layout="constrained")
    panels = figure.subplots(1, len(others), sharey=True, squeeze=False)[0]
    for ax, goal in zip(panels, others, strict=True):
        _panel(ax, answer, goal)
    panels[0].set_ylabel(axis_label(answer.quality.name), fontsize=9, color=INK)
    handles, names = panels[0].get_legend_handles_labels()
    figure.legend(handles, names, loc="outside upper left", ncols=4, frameon=False, fontsize=8, labelcolor=INK)
    save(figure, out)
    return True


def _panel(ax: Axes, answer: Answer, goal: Objective) -> None:
    bare(ax)
    searched = [row for row in answer.rows if row.role == "trial"]
    _points(ax, answer, goal, [row for row in searched if not row.on_front], "o", FAINT, "dominated")
    _points(ax, answer, goal, [row for row in searched if row.on_front], "o", SEARCHED, "on the front")
    _points(ax, answer, goal, [row for row in answer.rows if row.role != "trial"], "D", CONTROL, "control")
    for row in (row for row in searched if row.recommended):
        at = row.values[goal.name], row.values[answer.quality.name]
        ax.scatter(*at, s=170, facecolors="none", edgecolors=INK, linewidths=1.2, label="recommended", zorder=4)
    ax.xaxis.set_major_locator(MaxNLocator(5))
    if is_cost(goal.name):
        ax.xaxis.set_major_formatter(EngFormatter(sep=""))
    ax.set_xlabel(
        f"{axis_label(goal.name)}, {'less' if goal.goal == 'minimize' else 'more'} is better", fontsize=9, color=INK
    )


def _points(
    ax: Axes, answer: Answer, goal: Objective, rows: Sequence[Row], marker: str, colour: str, name: str
) -> None:
    if not rows:
        return
    known = all(math.isfinite(row.ci95) for row in rows) and colour != FAINT
    ax.errorbar(
        [row.values[goal.name] for row in rows],
        [row.values[answer.quality.name] for row in rows],
        yerr=[row.ci95 for row in rows] if known else None,
        fmt=marker,
        color=colour,
        markersize=5,
        elinewidth=0.9,
        linestyle="none",
        label=name,
        zorder=2 if colour == FAINT else 3,
    )
