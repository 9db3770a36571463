"""A contact sheet of a data set: a row per image, a column per task, a legend of the classes."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from itertools import cycle
from pathlib import Path
from typing import Any

import matplotlib
import numpy as np
from matplotlib.axes import Axes
from matplotlib.colors import to_hex
from matplotlib.figure import Figure
from matplotlib.layout_engine import ConstrainedLayoutEngine
from matplotlib.patches import Patch
from torch import Tensor

from faar_ray.data.datasets import SplitData
from faar_ray.data.dense import unnormalise
from faar_ray.errors import DataError
from faar_ray.storage.atomic import atomic_write
from faar_ray.tasks import IGNORE

Picture = np.ndarray[Any, Any]

IGNORED_COLOUR = np.array([0.88, 0.88, 0.88])
# The first nine suit the classes of `scenes`: floor brown, wall grey, person blue.
CLASS_COLOURS = np.vstack(
    [
        matplotlib.colormaps["Set1"]([6, 8, 7, 4, 0, 2, 3, 5, 1])[:, :3],
        *(matplotlib.colormaps[name](range(20))[:, :3] for name in ("tab20b", "tab20c")),
    ]
)
PART_COLOURS = np.vstack([[1.0, 1.0, 1.0], matplotlib.colormaps["Dark2"](range(6))[:, :3]])
DEEPEST = 9.0  # metres, the farthest corner of a usual room
CELL = 1.25  # inches
TITLES = {
    "image": "image",
    "semseg": "semantic classes",
    "human_parts": "human parts",
    "saliency": "saliency",
    "normals": "normals",
    "depth": "depth",
    "edge": "edges",
}


def write_contact_sheet(datasets: Mapping[str, SplitData], path: Path, images: int) -> None:
    """Write the first `images` samples of each named data set as a PNG.

    Raises:
        DataError: the picture cannot be written.
    """
    try:
        with atomic_write(path) as scratch:
            contact_sheet(datasets, images).savefig(scratch, format="png", dpi=130)
    except OSError as error:
        raise DataError(f"{path}: cannot be written ({error})") from error


def contact_sheet(datasets: Mapping[str, SplitData], images: int) -> Figure:
    """The sheet as a figure.

    Args:
        datasets: all have the same tasks; the names label the rows.
        images: rows per data set.
    """
    rows = [(name, index, data[index]) for name, data in datasets.items() for index in range(min(images, len(data)))]
    columns = [name for name in TITLES if name in rows[0][2]]
    tight = ConstrainedLayoutEngine(w_pad=0.02, h_pad=0.02, wspace=0.02, hspace=0.02)
    figure = Figure(figsize=(CELL * len(columns) + 0.5, CELL * len(rows) + 1.1), layout=tight)

    grid = figure.subplots(len(rows), len(columns), squeeze=False)
    for axes_row, (name, index, sample) in zip(grid, rows, strict=True):
        for axes, column in zip(axes_row, columns, strict=True):
            _show(axes, picture(column, sample[column]))
        axes_row[0].set_ylabel(f"{name} {index}", fontsize=8, color="0.25")
    for axes, column in zip(grid[0], columns, strict=True):
        axes.set_title(TITLES[column], fontsize=9)

    figure.legend(
        handles=_legend(columns, {name: task.classes for name, task in next(iter(datasets.values())).tasks.items()}),
        loc="outside lower center",
        ncols=8,
        fontsize=7,
        frameon=False,
    )
    return figure


def _show(axes: Axes, pixels: Picture) -> None:
    axes.imshow(pixels, interpolation="nearest")
    axes.set(xticks=[], yticks=[])
    axes.spines[:].set_visible(False)


def picture(name: str, value: Tensor) -> Picture:
    """The image, a label or a prediction of one sample as (H, W, 3) colours in 0..1."""
    if name == "image":
        return unnormalise(value).permute(1, 2, 0).numpy()
    if name in ("semseg", "human_parts"):
        return _indexed(value.numpy(), CLASS_COLOURS if name == "semseg" else PART_COLOURS)
    if name == "normals":  # as usual in pictures: red to the right, green up, blue towards the viewer
        mirrored = value.numpy() * np.array([1, -1, -1])[:, None, None]
        return np.asarray(mirrored / 2 + 0.5).transpose(1, 2, 0)
    if name == "depth":
        return np.asarray(matplotlib.colormaps["magma_r"](value[0].numpy() / DEEPEST)[..., :3])
    return np.asarray(matplotlib.colormaps["gray" if name == "saliency" else "gray_r"](value[0].numpy())[..., :3])


def _indexed(labels_HW: Picture, colours: Picture) -> Picture:
    return np.where((labels_HW == IGNORE)[..., None], IGNORED_COLOUR, colours[labels_HW % len(colours)])


def _legend(columns: list[str], classes: Mapping[str, Sequence[str]]) -> list[Patch]:
    entries: list[tuple[str, Picture]] = []
    if "semseg" in columns:
        entries += zip(classes["semseg"], cycle(CLASS_COLOURS), strict=False)
    if "human_parts" in columns:
        entries += [
            *zip(classes["human_parts"][1:], PART_COLOURS[1:], strict=True),
            ("ignored (no person)", IGNORED_COLOUR),
        ]
    if "depth" in columns:
        shades = np.asarray(matplotlib.colormaps["magma_r"](np.array([1, 4, 8]) / DEEPEST))
        entries += zip(("1 m deep", "4 m", "8 m"), shades, strict=True)
    return [Patch(color=to_hex(tuple(colour)), label=name) for name, colour in entries]
