"""A rank trace as a picture: layer x epoch, one panel for the shared adapters and one per task."""

from __future__ import annotations

from pathlib import Path

import pyarrow as pa
from matplotlib import colormaps
from matplotlib.axes import Axes
from matplotlib.colors import Normalize
from matplotlib.figure import Figure
from matplotlib.image import AxesImage
from matplotlib.ticker import MaxNLocator

from faar_ray.tracking.plots.drawing import FAINT, INK, save
from faar_ray.tracking.plots.layer_map import (
    ROW,
    TITLE,
    cell_means,
    draw_cells,
    epochs_of,
    label_layers,
    name_of,
    sites_of,
)

COLOURS = colormaps["viridis"]
CELL = 0.27  # inches, of an epoch
NARROWEST, WIDEST = 1.25, 2.6  # inches, of a panel
FITS = 0.17  # inches of cell width that a printed rank needs
LETTER = 0.05  # inches of a letter of a layer's name
TOP, BELOW, GAP, BAR, RIGHT = 0.48, 0.45, 0.09, 0.16, 0.72  # inches: titles, epochs, between panels, colour bar and all


def plot_rank_trace(table: pa.Table, out: Path, title: str) -> None:
    """Draw the ranks of one trial as heat maps (PNG).

    A row is a layer, the same one in every panel; a column is an epoch.

    Args:
        table: rows of `rank_trace.SCHEMA`, of one trial; at least one.
        out: the picture, written atomically.
        title: above the panels.
    """
    rows = table.select(["epoch", "stage", "block", "layer", "task", "rank"]).to_pylist()
    tasks = sorted(dict.fromkeys(r["task"] for r in rows), key=lambda task: task != "shared")
    epochs, sites = epochs_of(rows), sites_of(rows)

    left = 0.15 + LETTER * max(len(name_of(site)) for site in sites)
    width = min(WIDEST, max(NARROWEST, CELL * len(epochs)))
    width = max(width, (TITLE * len(title) - left - RIGHT) / len(tasks) - GAP)
    size = (left + (width + GAP) * len(tasks) + RIGHT, TOP + ROW * len(sites) + BELOW)
    figure = Figure(figsize=size)  # positions in inches: a layout engine would take most of the time
    axes = [_panel(figure, left + (width + GAP) * k, width) for k in range(len(tasks))]

    norm = Normalize(0, max(r["rank"] for r in rows))
    for ax, task in zip(axes, tasks, strict=True):
        ranks = cell_means([r for r in rows if r["task"] == task], "rank", sites, epochs)
        image = draw_cells(ax, ranks, epochs, COLOURS, norm, ".0f" if width / len(epochs) >= FITS else "")
        ax.set_title(task.replace("_", " "), fontsize=8.5, color=INK, loc="left", pad=4)
        ax.set_yticks([])

    label_layers(axes, sites)
    _colour_bar(figure, image, _panel(figure, size[0] - RIGHT + 0.05, BAR))
    figure.text((left + size[0] - RIGHT) / 2 / size[0], 0.08 / size[1], "epoch", fontsize=8.5, color=INK, ha="center")
    figure.text(0.1 / size[0], 1 - 0.19 / size[1], title, fontsize=10, color=INK, fontweight="bold")
    save(figure, out)


def _panel(figure: Figure, left: float, width: float) -> Axes:
    """Axes of the full height, in inches."""
    across, high = figure.get_size_inches()
    return figure.add_axes((left / across, BELOW / high, width / across, 1 - (BELOW + TOP) / high))


def _colour_bar(figure: Figure, image: AxesImage, ax: Axes) -> None:
    bar = figure.colorbar(image, cax=ax)
    bar.ax.yaxis.set_major_locator(MaxNLocator(integer=True, nbins=8))
    bar.set_label("rank", fontsize=8.5, color=INK)
    bar.outline.set_visible(False)
    bar.ax.tick_params(labelsize=7, length=2, color=FAINT)
