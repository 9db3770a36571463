"""The style of all plots: colours, plain axes, PNG files that are written atomically."""

from __future__ import annotations

from pathlib import Path

from matplotlib.axes import Axes
from matplotlib.figure import Figure

from faar_ray.storage.atomic import atomic_write

INK, MUTED, FAINT, GRID, EMPTY = "#22262b", "#6b727c", "#8a9099", "#e4e6ea", "#f1f2f4"
WARM = "#c2571a"
DPI = 160


def bare(ax: Axes) -> None:
    """Plain axes: two spines, a faint grid, small ticks."""
    ax.spines[["top", "right"]].set_visible(False)
    ax.spines[["left", "bottom"]].set_color(MUTED)
    ax.grid(color=GRID, linewidth=0.7)
    ax.set_axisbelow(True)
    ax.tick_params(labelsize=8, colors=INK, length=2.5)


def save(figure: Figure, out: Path) -> None:
    """Write a figure as PNG, atomically."""
    with atomic_write(out) as scratch, scratch.open("wb") as file:
        figure.savefig(file, format="png", dpi=DPI)
