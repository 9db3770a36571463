"""Heat maps with a row per layer, from the input at the top to the output, and a column per epoch."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Mapping, Sequence
from itertools import pairwise
from math import isfinite
from statistics import fmean
from typing import Any

import numpy as np
from matplotlib.axes import Axes
from matplotlib.colors import Colormap, Normalize
from matplotlib.image import AxesImage
from matplotlib.ticker import MaxNLocator
from numpy.typing import NDArray

from faar_ray.tracking.plots.drawing import EMPTY, INK

ROW = 0.17  # inches, of a layer
NUMBER = 5.5  # points, of a number in a cell
TITLE = 0.095  # inches of a letter of a figure's title
LAYERS = ("qkv", "proj", "fc1", "fc2")
DECODER = 4
Site = tuple[int, int, str]
"""(stage, block, layer)"""
Row = Mapping[str, Any]
"""A row of a trace, with epoch, stage, block and layer."""


def sites_of(rows: Sequence[Row]) -> list[Site]:
    """All layers of a trace, from the input to the output."""
    return sorted({(r["stage"], r["block"], r["layer"]) for r in rows}, key=_depth)


def epochs_of(rows: Sequence[Row]) -> list[int]:
    """Epochs of a trace, from the first to the last, without gaps."""
    epochs = [r["epoch"] for r in rows]
    return list(range(min(epochs), max(epochs) + 1))


def cell_means(rows: Sequence[Row], column: str, sites: Sequence[Site], epochs: Sequence[int]) -> NDArray[np.float64]:
    """Means of a column by layer and epoch, shape (sites, epochs); nan where the trace has no value."""
    cells: dict[tuple[int, int], list[float]] = defaultdict(list)
    index = {site: i for i, site in enumerate(sites)}

    for r in rows:
        if r[column] is not None and isfinite(r[column]):
            cells[index[r["stage"], r["block"], r["layer"]], r["epoch"] - epochs[0]].append(r[column])

    means = np.full((len(sites), len(epochs)), np.nan)
    for cell, values in cells.items():
        means[cell] = fmean(values)
    return means


def draw_cells(
    ax: Axes, cells: NDArray[np.float64], epochs: Sequence[int], colours: Colormap, norm: Normalize, numbers: str = ""
) -> AxesImage:
    """Draw a heat map, with the values in its cells where `numbers` is their format."""
    left, right = epochs[0] - 0.5, epochs[-1] + 0.5
    image = ax.imshow(
        np.ma.masked_invalid(cells),
        cmap=colours,
        norm=norm,
        aspect="auto",
        interpolation="nearest",
        extent=(left, right, len(cells) - 0.5, -0.5),
    )
    ax.set_facecolor(EMPTY)
    ax.xaxis.set_major_locator(MaxNLocator(integer=True, nbins=min(len(epochs), 8), min_n_ticks=1))
    ax.tick_params(labelsize=7, length=0, colors=INK)
    ax.spines[:].set_visible(False)

    if numbers:
        shades = colours(norm(cells))
        for (i, j), value in np.ndenumerate(cells):
            if np.isfinite(value):
                colour, text = readable_on(shades[i, j]), format(value, numbers)
                ax.text(epochs[j], i, text, fontsize=NUMBER, color=colour, ha="center", va="center_baseline")
    return image


def label_layers(axes: Sequence[Axes], sites: Sequence[Site]) -> None:
    """Label the rows of the first axes; in all, separate blocks by a thin gap and stages by a wider one."""
    axes[0].set_yticks(range(len(sites)), [name_of(site) for site in sites], fontsize=6.5)
    for i, (before, after) in enumerate(pairwise(sites)):
        if before[:2] != after[:2]:
            for ax in axes:
                ax.axhline(i + 0.5, color="white", linewidth=2.5 if before[0] != after[0] else 0.8)


def _depth(site: Site) -> tuple[int, int, int, str]:
    """Sort key in the order of the forward pass; a base comes after its linear."""
    stage, block, layer = site
    linear = layer.partition("_")[0]
    return stage, block, LAYERS.index(linear) if linear in LAYERS else len(LAYERS), layer


def name_of(site: Site) -> str:
    """A layer's label."""
    stage, block, layer = site
    if layer == "reduction":
        return f"s{stage} {layer}"
    return f"decoder {layer}" if stage == DECODER else f"s{stage}.b{block} {layer.replace('_awb', ' AWB')}"


def readable_on(colour: Sequence[float]) -> str:
    """Dark or white text, by the colour's relative luminance."""
    red, green, blue = colour[:3]
    return INK if 0.2126 * red + 0.7152 * green + 0.0722 * blue > 0.5 else "white"
