"""A contact sheet of a data set: a row per image, a column per task, a legend for each task."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import matplotlib
import numpy as np
from matplotlib.axes import Axes
from matplotlib.colors import to_hex
from matplotlib.figure import Figure
from matplotlib.layout_engine import ConstrainedLayoutEngine
from matplotlib.patches import Patch
from matplotlib.ticker import MaxNLocator
from torch import Tensor

from faar_ray.data.datasets import SplitData
from faar_ray.data.pictures import (
    DEPTH_COLOURS,
    IGNORED_COLOUR,
    VALUE_COLOURS,
    class_colours,
    measured_range,
    picture,
)
from faar_ray.errors import DataError
from faar_ray.storage.atomic import atomic_write
from faar_ray.tasks import IGNORE, Task

CELL_AREA = 2.3
"""Square inches of a picture."""
MOST_CLASSES = 24
"""Of a legend; the rarest are left out."""
TITLES = {"image": "image", "semseg": "semantic classes", "edge": "edges"}
DPI = 130


@dataclass(frozen=True, slots=True)
class Row:
    """One row of the sheet."""

    label: str
    sample: Mapping[str, Tensor]


def write_contact_sheet(datasets: Mapping[str, SplitData], path: Path, images: int, augmented: int = 0) -> None:
    """Write the first `images` samples of each named data set as a PNG.

    Args:
        datasets: all have the same tasks; the names label the rows.
        path: of the PNG.
        images: samples per data set.
        augmented: epochs of training that each sample is shown in, below it.

    Raises:
        DataError: a sample cannot be read, or the picture cannot be written.
    """
    try:
        with atomic_write(path) as scratch:
            contact_sheet(datasets, images, augmented).savefig(scratch, format="png", dpi=DPI)
    except OSError as error:
        raise DataError(f"{path}: cannot be written ({error})") from error


def contact_sheet(datasets: Mapping[str, SplitData], images: int, augmented: int = 0) -> Figure:
    """The sheet as a figure; arguments as those of `write_contact_sheet`."""
    rows = [row for name, data in datasets.items() for row in _rows(name, data, images, augmented)]
    if not rows:
        raise DataError("data: there is no image to show")
    tasks = next(iter(datasets.values())).tasks
    ranges = {name: _range(task, rows) for name, task in tasks.items() if task.type in ("depth", "regression")}

    height, width = rows[0].sample["image"].shape[-2:]
    cell_height = (CELL_AREA * height / width) ** 0.5
    cell_width = CELL_AREA / cell_height
    legends = list(_legends(tasks, rows, ranges))
    legend_height = sum(0.22 + 0.17 * -(-len(handles) // _columns(tasks, cell_width)) for _, handles in legends)
    tight = ConstrainedLayoutEngine(w_pad=0.02, h_pad=0.02, wspace=0.02, hspace=0.02)
    grid_size = (cell_width * (len(tasks) + 1) + 0.4, cell_height * len(rows) + 0.35)
    figure = Figure(figsize=(grid_size[0], grid_size[1] + legend_height), layout=tight)

    parts = figure.subfigures(2, 1, squeeze=False, height_ratios=(grid_size[1], max(legend_height, 0.01)))
    above, below = parts[:, 0]
    grid = above.subplots(len(rows), len(tasks) + 1, squeeze=False)
    for axes_row, row in zip(grid, rows, strict=True):
        _show(axes_row[0], picture(None, row.sample["image"]))
        axes_row[0].set_ylabel(row.label, fontsize=8, color="0.25")
        for axes, (name, task) in zip(axes_row[1:], tasks.items(), strict=True):
            _show(axes, picture(task, row.sample[name], ranges.get(name)))
    for axes, name in zip(grid[0], ("image", *tasks), strict=True):
        axes.set_title(title(name), fontsize=9)

    top = 1.0
    for name, handles in legends:
        columns = _columns(tasks, cell_width)
        share = (0.22 + 0.17 * -(-len(handles) // columns)) / legend_height
        below.legend(
            handles=handles,
            title=title(name),
            loc="upper left",
            bbox_to_anchor=(0.01, top),
            ncols=columns,
            fontsize=7,
            title_fontproperties={"size": 7.5, "weight": "bold"},
            alignment="left",
            frameon=False,
            borderaxespad=0,
            borderpad=0,
            columnspacing=1.2,
            handlelength=1.2,
        )
        top -= share
    return figure


def title(name: str) -> str:
    """A column's heading."""
    return TITLES.get(name, name.replace("_", " "))


def _rows(name: str, data: SplitData, images: int, augmented: int) -> Iterator[Row]:
    for index in range(min(images, len(data))):
        yield Row(f"{name} {index}", data[index])
        for epoch in range(augmented):
            yield Row(f"epoch {epoch}", data.augmented(index, 0, epoch))


def _columns(tasks: Mapping[str, Task], cell_width: float) -> int:
    """Entries beside each other in a legend."""
    return max(2, int(cell_width * (len(tasks) + 1) / 1.15))


def _show(axes: Axes, pixels: np.ndarray[tuple[int, ...], np.dtype[np.float64]]) -> None:
    axes.imshow(pixels, interpolation="nearest" if pixels.shape[0] < 200 else "antialiased")
    axes.set(xticks=[], yticks=[])
    axes.spines[:].set_visible(False)


def _range(task: Task, rows: Sequence[Row]) -> tuple[float, float]:
    return measured_range(task, *(row.sample[task.name][0].numpy() for row in rows))


def _legends(
    tasks: Mapping[str, Task], rows: Sequence[Row], ranges: Mapping[str, tuple[float, float]]
) -> Iterator[tuple[str, list[Patch]]]:
    """Per task that needs one its entries: the classes that are seen, most frequent first, or values."""
    for name, task in tasks.items():
        if task.type == "segmentation":
            yield name, _class_entries(task, rows)
        elif name in ranges:
            yield name, _value_entries(task, ranges[name])


def _class_entries(task: Task, rows: Sequence[Row]) -> list[Patch]:
    pixels = np.concatenate([row.sample[task.name].numpy().ravel() for row in rows])
    counts = np.bincount(pixels[pixels != IGNORE], minlength=len(task.classes))
    seen = [int(label) for label in np.argsort(-counts, kind="stable") if counts[label]]
    colours = class_colours(task)
    entries = [(task.classes[label], colours[label]) for label in seen[:MOST_CLASSES]]
    patches = [Patch(facecolor=to_hex(tuple(colour)), edgecolor="0.7", linewidth=0.4, label=n) for n, colour in entries]
    if len(seen) > MOST_CLASSES:
        patches.append(Patch(facecolor="none", label=f"and {len(seen) - MOST_CLASSES} more"))
    if (pixels == IGNORE).any():
        patches.append(Patch(color=to_hex(tuple(IGNORED_COLOUR)), label="no label"))
    return patches


def _value_entries(task: Task, shown: tuple[float, float]) -> list[Patch]:
    colours = matplotlib.colormaps[DEPTH_COLOURS if task.type == "depth" else VALUE_COLOURS]
    unit = f" {task.metric_unit}" if task.metric_unit else ""
    low, high = shown
    values = [float(v) for v in MaxNLocator(4).tick_values(low, high) if low < v < high]
    return [Patch(color=to_hex(colours((value - low) / (high - low))), label=f"{value:g}{unit}") for value in values]
