"""What a folder of label files seems to hold, for a first dataset.yaml; a person checks it."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

from faar_ray.config.task_definitions import MOST_CLASSES, TaskType
from faar_ray.data.photographs.label_files import PICTURES, Array, is_grey, packed, read_array
from faar_ray.errors import DataError
from faar_ray.tasks import IGNORE

LOOKED_AT = 200
"""Files of a task that are read for a guess."""
UNIT_SHARE = 0.7
"""Part of the vectors that must have length 1 in normals."""
FEW_VALUES = 64
"""Whole numbers of more different values are a quantity where the folder's name says so."""
MOST_VALUES = 4096
"""Different values that are counted."""
DEPTHS, EDGES = ("depth", "disp", "dist"), ("edge", "boundar", "contour")


@dataclass(frozen=True, slots=True)
class Guess:
    """A task's type and keys, and what a person should look at."""

    type: TaskType
    keys: Mapping[str, Any] = field(default_factory=dict)
    check: tuple[str, ...] = ()


@dataclass(slots=True)
class Seen:
    """What was seen of the pixels of one task's files."""

    files: int = 0
    channels: set[int] = field(default_factory=set)
    whole: bool = True
    """Whether all numbers are whole."""
    values: set[float] = field(default_factory=set)
    """Different values, or 0xRRGGBB; no more are added above MOST_VALUES."""
    low: float = np.inf
    high: float = -np.inf
    vectors: int = 0
    """Of three channels, those that could be normals."""
    units: int = 0
    """Those of them that have length 1."""
    palettes: set[tuple[int, ...]] = field(default_factory=set)


def guess(name: str, paths: Sequence[Path]) -> Guess:
    """What the label files of a folder hold.

    Raises:
        DataError: nothing that is known.
    """
    seen = look(name, paths)
    if seen.channels == {3}:
        return _of_three_channels(seen)
    if seen.channels != {1}:
        raise DataError("files of one and of three channels")
    lower = name.lower()
    if seen.whole and seen.values and seen.values <= {0, 1, IGNORE}:
        return _two_valued(seen, lower)
    is_depth = any(word in lower for word in DEPTHS)
    if seen.high == -np.inf:
        raise DataError("no pixel has a number")
    far = is_depth and (len(seen.values) > FEW_VALUES or seen.high > IGNORE)
    if not seen.whole or len(seen.values) > MOST_CLASSES or far:
        return _quantity(seen, is_depth=is_depth)
    if seen.low < 0:
        return _quantity(seen, is_depth=False)
    return _classes(seen)


def look(name: str, paths: Sequence[Path]) -> Seen:
    """Read files, evenly chosen if there are many.

    Raises:
        DataError: a file that cannot be read.
    """
    seen, step = Seen(), max(1, -(-len(paths) // LOOKED_AT))
    for path in paths[::step]:
        array = read_array(path, name)
        seen.files += 1
        if array.ndim == 3 and is_grey(array):
            array = array[..., 0]
        seen.channels.add(3 if array.ndim == 3 else 1)
        (_see_vectors if array.ndim == 3 else _see_numbers)(seen, array)
        if path.suffix.lower() in PICTURES:
            _see_palette(seen, path)
    return seen


def _see_numbers(seen: Seen, array_HW: Array) -> None:
    numbers = array_HW[np.isfinite(array_HW)]
    if not numbers.size:
        return
    seen.low, seen.high = min(seen.low, float(numbers.min())), max(seen.high, float(numbers.max()))
    seen.whole &= array_HW.dtype.kind in "bui" or bool((numbers == np.round(numbers)).all())
    if seen.whole and len(seen.values) <= MOST_VALUES:
        seen.values |= set(np.unique(numbers).tolist())


def _see_vectors(seen: Seen, array_HW3: Array) -> None:
    if array_HW3.dtype == np.uint8:
        if len(seen.values) <= MOST_VALUES:
            seen.values |= set(np.unique(packed(array_HW3)).tolist())
        vectors = array_HW3.astype(np.float32) * (2 / 255) - 1
    else:
        seen.whole = False
        vectors = np.nan_to_num(array_HW3.astype(np.float32))
    lengths = np.sqrt(np.square(vectors).sum(-1))
    some = (lengths > 0.1) & (lengths < 1.7)  # no label: 0, or black or white in a picture
    seen.vectors += int(some.sum())
    seen.units += int((np.abs(lengths[some] - 1) < 0.1).sum())


def _see_palette(seen: Seen, path: Path) -> None:
    with Image.open(path) as picture:
        palette = picture.getpalette("RGB") if picture.mode == "P" else None
    if palette:
        seen.palettes.add(tuple(palette))


def _of_three_channels(seen: Seen) -> Guess:
    if seen.vectors and seen.units >= UNIT_SHARE * seen.vectors:
        return Guess("normals", check=("axes: x to the right, y down, z away from the camera",))
    if not seen.whole or not 2 <= len(seen.values) <= MOST_CLASSES:
        raise DataError("three channels that are neither unit vectors nor at most 255 colours")
    colours = [f"#{int(value):06x}" for value in sorted(seen.values)]
    check = ("classes: one for each colour that was found", *_names_are_unknown(seen))
    return Guess("segmentation", {"classes": _numbered(len(colours)), "colours": colours}, check)


def _two_valued(seen: Seen, name: str) -> Guess:
    kind: TaskType = "edge" if any(word in name for word in EDGES) else "binary"
    check = [f"only {', '.join(f'{value:g}' for value in sorted(seen.values))} occur: segmentation of 2 classes?"]
    if {1, IGNORE} <= seen.values:
        return Guess(kind, {"values": [0, 1], "ignore": IGNORE}, (*check, "255 is taken as no label"))
    return Guess(kind, {"values": [0, IGNORE if IGNORE in seen.values else 1]}, tuple(check))


def _quantity(seen: Seen, *, is_depth: bool) -> Guess:
    values = f"values from {seen.low:g} to {seen.high:g}"
    if not is_depth:
        return Guess("regression", {}, (f"{values}: unit, scale, and which mean no label (ignore)",))
    keys: dict[str, Any] = {"unit": "m"}
    taken = "in metres"
    if seen.whole and seen.high > IGNORE:
        keys["scale"], taken = 0.001, "taken as millimetres"
    elif seen.whole:
        taken = "whole numbers: `scale` is one step in metres"
    if seen.low == 0:
        keys["ignore"], taken = 0, f"{taken}, 0 as no label"
    return Guess("depth", keys, (f"{values}, {taken}",))


def _classes(seen: Seen) -> Guess:
    values = sorted(int(value) for value in seen.values)
    keys: dict[str, Any] = {}
    check: list[str] = []
    if values[-1] == IGNORE and len(values) > 2 and values[-2] < IGNORE - 1:
        values.pop()
        keys["ignore"] = IGNORE
        check.append("255 is taken as no label")

    if values[-1] < 2 * len(values):  # classes in between are rare, not absent
        count = values[-1] + 1
        check.append(f"classes: values 0 to {values[-1]}, of which {len(values)} were found")
    else:
        count, keys["values"] = len(values), values
        check.append("values: those that were found")
    keys = {"classes": _numbered(count), **keys}
    if len(seen.palettes) == 1 and "values" not in keys:
        colours = _palette_colours(next(iter(seen.palettes)), count)
        keys |= {"colours": colours} if len(set(colours)) == count else {}
    return Guess("segmentation", keys, (*check, *_names_are_unknown(seen)))


def _palette_colours(palette: Sequence[int], count: int) -> list[str]:
    return ["#" + bytes(palette[3 * i : 3 * i + 3]).hex() for i in range(count) if len(palette) >= 3 * i + 3]


def _numbered(count: int) -> list[str]:
    return [f"class_{number}" for number in range(count)]


def _names_are_unknown(seen: Seen) -> tuple[str, ...]:
    return ("names of the classes", "a class that means no label belongs in `ignore`")
