"""A rank trace as a picture: layer x epoch, one panel for the shared adapters and one per task."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
from matplotlib import colormaps
from matplotlib.axes import Axes
from matplotlib.colors import Normalize
from matplotlib.figure import Figure
from matplotlib.image import AxesImage
from matplotlib.ticker import MaxNLocator
from numpy.typing import NDArray

from faar_ray.tracking.atomic import replacing

COLOURS = colormaps["viridis"]
INK, FAINT, EMPTY = "#22262b", "#8a9099", "#f1f2f4"
CELL, ROW = 0.27, 0.17  # inches, of an epoch and of a layer
NARROWEST, WIDEST = 1.25, 2.6  # inches, of a panel
FITS = 0.17  # inches of cell width that a printed rank needs
TITLE = 0.095  # inches of a letter of the title
LAYERS = ("qkv", "proj", "fc1", "fc2")
Site = tuple[int, int, str]
"""(stage, block, layer)"""


def plot_rank_trace(table: pa.Table, out: Path, title: str) -> None:
    """Draw the ranks of one trial as heat maps (PNG).

    A row is a layer, the same one in every panel, from the input at the top to the output; a column is an epoch.

    Args:
        table: rows of `rank_trace.SCHEMA`, of one trial; at least one.
        out: the picture, written atomically.
        title: said above it.
    """
    rows = table.select(["epoch", "stage", "block", "layer", "task", "rank"]).to_pylist()
    tasks = sorted(dict.fromkeys(r["task"] for r in rows), key=lambda task: task != "shared")
    epochs = list(range(min(r["epoch"] for r in rows), max(r["epoch"] for r in rows) + 1))
    sites = sorted({(r["stage"], r["block"], r["layer"]) for r in rows}, key=_depth)
    width = min(WIDEST, max(NARROWEST, CELL * len(epochs)))
    across = max((width + 0.12) * len(tasks) + 1.75, TITLE * len(title))
    figure = Figure(figsize=(across, ROW * len(sites) + 1.15), dpi=160, layout="constrained")
    axes = list(figure.subplots(1, len(tasks), sharey=True, squeeze=False)[0])
    norm = Normalize(0, max(r["rank"] for r in rows))
    for ax, task in zip(axes, tasks, strict=True):
        ranks = rank_matrix([r for r in rows if r["task"] == task], sites, epochs)
        image = _panel(ax, ranks, epochs, norm, numbers=width / len(epochs) >= FITS)
        ax.set_title(task.replace("_", " "), fontsize=8.5, color=INK, loc="left", pad=4)
    _label_layers(axes, sites)
    _colour_bar(figure, image, axes)
    figure.supxlabel("epoch", fontsize=8.5, color=INK)
    figure.suptitle(title, fontsize=10, color=INK, fontweight="bold", x=0.01, ha="left")
    with replacing(out) as scratch, scratch.open("wb") as file:
        figure.savefig(file, format="png")


def rank_matrix(rows: Sequence[dict[str, Any]], sites: Sequence[Site], epochs: Sequence[int]) -> NDArray[np.float64]:
    """Ranks, shape (sites, epochs); nan where the trace has no row."""
    where = {site: i for i, site in enumerate(sites)}
    out = np.full((len(sites), len(epochs)), np.nan)
    for r in rows:
        out[where[r["stage"], r["block"], r["layer"]], r["epoch"] - epochs[0]] = r["rank"]
    return out


def _depth(site: Site) -> tuple[int, int, int, str]:
    stage, block, layer = site
    return stage, block, LAYERS.index(layer) if layer in LAYERS else len(LAYERS), layer


def _panel(ax: Axes, ranks: NDArray[np.float64], epochs: Sequence[int], norm: Normalize, *, numbers: bool) -> AxesImage:
    left, right = epochs[0] - 0.5, epochs[-1] + 0.5
    image = ax.imshow(
        np.ma.masked_invalid(ranks),
        cmap=COLOURS,
        norm=norm,
        aspect="auto",
        interpolation="nearest",
        extent=(left, right, len(ranks) - 0.5, -0.5),
    )
    ax.set_facecolor(EMPTY)
    ax.xaxis.set_major_locator(MaxNLocator(integer=True, nbins=min(len(epochs), 8), min_n_ticks=1))
    ax.tick_params(labelsize=7, length=0, colors=INK)
    ax.spines[:].set_visible(False)
    if numbers:
        for (i, j), rank in np.ndenumerate(ranks):
            if np.isfinite(rank):
                ax.text(
                    epochs[j],
                    i,
                    f"{rank:.0f}",
                    ha="center",
                    va="center_baseline",
                    fontsize=5.5,
                    color=_readable_on(COLOURS(norm(rank))),
                )
    return image


def _readable_on(colour: Sequence[float]) -> str:
    """Dark or white text, by the colour's relative luminance."""
    red, green, blue = colour[:3]
    return INK if 0.2126 * red + 0.7152 * green + 0.0722 * blue > 0.5 else "white"


def _label_layers(axes: Sequence[Axes], sites: Sequence[Site]) -> None:
    """Names at the left; a thin gap between blocks, a wider one between stages."""
    axes[0].set_yticks(range(len(sites)), [f"s{s}.b{b} {layer}" for s, b, layer in sites], fontsize=6.5)
    for i, (before, after) in enumerate(pairwise(sites)):
        if before[:2] != after[:2]:
            for ax in axes:
                ax.axhline(i + 0.5, color="white", linewidth=2.5 if before[0] != after[0] else 0.8)


def _colour_bar(figure: Figure, image: AxesImage, axes: Sequence[Axes]) -> None:
    bar = figure.colorbar(image, ax=list(axes), pad=0.015, aspect=30, fraction=0.05)
    bar.ax.yaxis.set_major_locator(MaxNLocator(integer=True, nbins=8))
    bar.set_label("rank", fontsize=8.5, color=INK)
    bar.outline.set_visible(False)
    bar.ax.tick_params(labelsize=7, length=2, color=FAINT)
