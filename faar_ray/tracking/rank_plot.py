"""A rank trace as a picture: layer x epoch, one panel for the shared adapters and one per task."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import pyarrow as pa
from matplotlib import colormaps
from matplotlib.axes import Axes
from matplotlib.colors import Normalize
from matplotlib.figure import Figure
from matplotlib.image import AxesImage
from matplotlib.ticker import MaxNLocator

from faar_ray.tracking.drawing import FAINT, INK, save
from faar_ray.tracking.layer_map import ROW, TITLE, cell_means, draw_cells, epochs_of, label_layers, sites_of

COLOURS = colormaps["viridis"]
CELL = 0.27  # inches, of an epoch
NARROWEST, WIDEST = 1.25, 2.6  # inches, of a panel
FITS = 0.17  # inches of cell width that a printed rank needs


def plot_rank_trace(table: pa.Table, out: Path, title: str) -> None:
    """Draw the ranks of one trial as heat maps (PNG).

    A row is a layer, the same one in every panel; a column is an epoch.

    Args:
        table: rows of `rank_trace.SCHEMA`, of one trial; at least one.
        out: the picture, written atomically.
        title: said above it.
    """
    rows = table.select(["epoch", "stage", "block", "layer", "task", "rank"]).to_pylist()
    tasks = sorted(dict.fromkeys(r["task"] for r in rows), key=lambda task: task != "shared")
    epochs, sites = epochs_of(rows), sites_of(rows)
    width = min(WIDEST, max(NARROWEST, CELL * len(epochs)))
    across = max((width + 0.12) * len(tasks) + 1.75, TITLE * len(title))
    figure = Figure(figsize=(across, ROW * len(sites) + 1.15), layout="constrained")
    axes = list(figure.subplots(1, len(tasks), sharey=True, squeeze=False)[0])
    norm = Normalize(0, max(r["rank"] for r in rows))
    for ax, task in zip(axes, tasks, strict=True):
        ranks = cell_means([r for r in rows if r["task"] == task], "rank", sites, epochs)
        image = draw_cells(ax, ranks, epochs, COLOURS, norm, ".0f" if width / len(epochs) >= FITS else "")
        ax.set_title(task.replace("_", " "), fontsize=8.5, color=INK, loc="left", pad=4)
    label_layers(axes, sites)
    _colour_bar(figure, image, axes)
    figure.supxlabel("epoch", fontsize=8.5, color=INK)
    figure.suptitle(title, fontsize=10, color=INK, fontweight="bold", x=0.01, ha="left")
    save(figure, out)


def _colour_bar(figure: Figure, image: AxesImage, axes: Sequence[Axes]) -> None:
    bar = figure.colorbar(image, ax=list(axes), pad=0.015, aspect=30, fraction=0.05)
    bar.ax.yaxis.set_major_locator(MaxNLocator(integer=True, nbins=8))
    bar.set_label("rank", fontsize=8.5, color=INK)
    bar.outline.set_visible(False)
    bar.ax.tick_params(labelsize=7, length=2, color=FAINT)
