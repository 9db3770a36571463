"""One look for all plots: ink, colours by configuration, bare axes."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from matplotlib import colormaps
from matplotlib.axes import Axes
from matplotlib.colors import to_hex
from matplotlib.figure import Figure

from faar_ray.report.table import Row
from faar_ray.tracking.atomic import replacing

INK, MUTED, GRID = "#22262b", "#6b727c", "#e4e6ea"
CONTROL = "#c2571a"
DPI = 160
CONTROLS = ("#c2571a", "#a63a6f", "#8a6d00", "#5b6470")


def colours(rows: Sequence[Row]) -> dict[str, str]:
    """A colour per configuration: the search's from light to dark with their cost, controls in warm hues."""
    searched = sorted((r for r in rows if r.role == "trial"), key=lambda r: r.cost or 0.0)
    steps = [0.75 - 0.72 * i / max(1, len(searched) - 1) for i in range(len(searched))]
    found = {r.config_id: to_hex(colormaps["viridis"](x)) for r, x in zip(searched, steps, strict=True)}
    others = (r for r in rows if r.role != "trial")
    return found | {r.config_id: CONTROLS[i % len(CONTROLS)] for i, r in enumerate(others)}


def bare(ax: Axes) -> None:
    """Only what is read: two spines, a faint grid, small ticks."""
    ax.spines[["top", "right"]].set_visible(False)
    ax.spines[["left", "bottom"]].set_color(MUTED)
    ax.grid(color=GRID, linewidth=0.7)
    ax.set_axisbelow(True)
    ax.tick_params(labelsize=8, colors=INK, length=2.5)


def save(figure: Figure, out: Path) -> None:
    """As PNG, atomically."""
    with replacing(out) as scratch, scratch.open("wb") as file:
        figure.savefig(file, format="png", dpi=DPI)
