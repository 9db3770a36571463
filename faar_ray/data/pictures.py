"""Images, labels and predictions as colours, by the type of the task."""

from __future__ import annotations

from typing import Any

import matplotlib
import numpy as np
from matplotlib.colors import to_rgb
from torch import Tensor

from faar_ray.config.class_names import CITYSCAPES, HUMAN_PARTS, PASCAL, SCENES
from faar_ray.data.dense import unnormalise
from faar_ray.tasks import IGNORE, Task

Picture = np.ndarray[Any, Any]
IGNORED_COLOUR = np.array([0.88, 0.88, 0.88])
FARTHEST = 9.0
"""Metres, the farthest corner of a usual room: where a picture's depth ends unless it is told."""
DEPTH_COLOURS, VALUE_COLOURS = "magma_r", "viridis"
BACKGROUND = "#ffffff"
PALETTES: dict[tuple[str, ...], str] = {
    SCENES: "a65628 999999 f781bf ff7f00 e41a1c 4daf4a 984ea3 ffff33 377eb8",
    HUMAN_PARTS: "ffffff 1b9e77 d95f02 7570b3 e7298a 66a61e e6ab02",
    PASCAL: "000000 800000 008000 808000 000080 800080 008080 808080 400000 c00000 408000 c08000 400080 c00080 408080 "
    "c08080 004000 804000 00c000 80c000 004080",
    CITYSCAPES: "804080 f423e8 464646 66669c be9999 999999 faaa1e dcdc00 6b8e23 98fb98 4682b4 dc143c ff0000 00008e "
    "000046 003c64 005064 0000e6 770b20",
}
"""Colours that people know: VOC's, Cityscapes' own, floor brown and wall grey."""


def class_colours(task: Task) -> Picture:
    """(N, 3) colours of a segmentation task: its definition's, those that people know, or distinct ones."""
    if task.colours is not None:
        return np.array([to_rgb(colour) for colour in task.colours])
    if known := PALETTES.get(tuple(task.classes)):
        return np.array([to_rgb(f"#{colour}") for colour in known.split()])

    maps = [matplotlib.colormaps[name] for name in ("tab20", "tab20b", "tab20c")]
    # strong colours before pale ones, so that few classes look least alike
    distinct = [colours(i)[:3] for start in (0, 1) for colours in maps for i in range(start, 20, 2)]
    colours = np.array([distinct[i % len(distinct)] for i in range(len(task.classes))])
    if task.classes[0] == "background":
        colours[0] = to_rgb(BACKGROUND)
    return colours


def picture(task: Task | None, value: Tensor, shown: tuple[float, float] | None = None) -> Picture:
    """A label or prediction of one sample, decoded, as (H, W, 3) colours in 0..1; without a task the image.

    Args:
        task: what `value` is.
        value: as data/dense.py lists it.
        shown: range of depth or of a regression that the colours span; None: 0 to 9 for depth, else all values.
    """
    if task is None:
        return unnormalise(value).permute(1, 2, 0).numpy()
    match task.type:
        case "segmentation":
            labels_HW, colours = value.numpy(), class_colours(task)
            return np.where((labels_HW == IGNORE)[..., None], IGNORED_COLOUR, colours[labels_HW % len(colours)])
        case "normals":  # as usual in pictures: red to the right, green up, blue towards the viewer
            mirrored = value.numpy() * np.array([1, -1, -1])[:, None, None]
            colours = np.asarray(mirrored / 2 + 0.5).transpose(1, 2, 0)
            return _known(colours, value.square().sum(0).numpy() > 0.25)
        case "binary" | "edge":
            plane = value[0].numpy()
            colours = matplotlib.colormaps["gray" if task.type == "binary" else "gray_r"](plane)[..., :3]
            return _known(np.asarray(colours), plane != IGNORE)
        case _:
            return _measured(task, value[0].numpy(), shown)


def _measured(task: Task, plane_HW: Picture, shown: tuple[float, float] | None) -> Picture:
    known = known_values(task, plane_HW)
    low, high = shown or measured_range(task, plane_HW)
    colours = matplotlib.colormaps[DEPTH_COLOURS if task.type == "depth" else VALUE_COLOURS]
    scaled = (np.where(known, plane_HW, low) - low) / max(high - low, 1e-9)
    return _known(np.asarray(colours(scaled)[..., :3]), known)


def known_values(task: Task, plane: Picture) -> Picture:
    """Where depth or a regression has a value."""
    known: Picture = np.isfinite(plane) & ((plane != IGNORE) | (task.type == "regression"))
    return known


def measured_range(task: Task, *planes: Picture) -> tuple[float, float]:
    """The range that colours span: depth in metres to the end of a room, else all values but the outermost 2%."""
    values = np.concatenate([plane[known_values(task, plane)].ravel() for plane in planes])
    if task.type == "depth" and task.metric_unit == "m" and (not values.size or np.quantile(values, 0.98) <= FARTHEST):
        return 0.0, FARTHEST
    if not values.size:
        return 0.0, 1.0
    low, high = (float(v) for v in np.quantile(values, (0.02, 0.98)))
    return (0.0 if task.type == "depth" else low), high


def _known(colours_HW3: Picture, known_HW: Picture) -> Picture:
    return np.where(known_HW[..., None], colours_HW3, IGNORED_COLOUR)
