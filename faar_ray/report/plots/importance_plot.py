"""Importance of the searched parameters: a panel of bars per objective.

Optuna's `plot_param_importances` shows neither which effects exceed the seed noise, nor the objectives' names, nor on
how many trials the share of a conditional parameter rests.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.patches import Patch
from matplotlib.ticker import PercentFormatter

from faar_ray.report.plots.style import SEARCHED
from faar_ray.report.statistics.importance import Importances
from faar_ray.report.words.wording import label
from faar_ray.tracking.plots.drawing import FAINT, INK, bare, save

PALE = "#c9ced6"
MOST_BARS = 15


def plot_importance(importances: Sequence[Importances], out: Path) -> bool:
    """Draw shares (PNG), pale where the effect is within the seed noise; False where there are none."""
    shown = [one for one in importances if one.rows]
    if not shown:
        return False
    names = list(dict.fromkeys(row.parameter for row in shown[0].rows))[:MOST_BARS]
    figure = Figure(figsize=(8.6, 1.35 + 0.3 * len(names)), layout="constrained")
    panels = figure.subplots(1, len(shown), sharey=True, squeeze=False)[0]
    for ax, one in zip(panels, shown, strict=True):
        _bars(ax, one, names)
    handles = [Patch(color=SEARCHED), Patch(color=PALE)]
    keys = ["effect beyond the seed noise", "within it, or the noise is unknown"]
    figure.legend(handles, keys, loc="outside upper left", ncols=2, frameon=False, fontsize=8, labelcolor=INK)
    figure.supxlabel("importance (mean decrease of impurity)", fontsize=9, color=INK)
    save(figure, out)
    return True


def _bars(ax: Axes, one: Importances, names: Sequence[str]) -> None:
    bare(ax)
    ax.grid(visible=False, axis="y")
    rows = {row.parameter: row for row in one.rows}
    for place, name in enumerate(names):
        if name in rows:
            row = rows[name]
            ax.barh(place, row.share, height=0.62, color=SEARCHED if row.beyond_noise else PALE)
            few = f"  {row.trials} of {one.trials} trials" if row.conditional else ""
            ax.text(
                row.share, place, f" {row.share:.0%}{few}", va="center", fontsize=7.5, color=INK if not few else FAINT
            )
    ax.set_yticks(range(len(names)), names)
    ax.set_ylim(len(names) - 0.4, -0.6)
    ax.set_xlim(0, 1.32)
    ax.set_xticks([0, 0.25, 0.5, 0.75, 1.0])
    ax.xaxis.set_major_formatter(PercentFormatter(1.0))
    ax.set_title(label(one.objective), fontsize=9, loc="left", color=INK)
