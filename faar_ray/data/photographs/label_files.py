"""Label files of a folder: PNG, TIFF, npy, npz; their values as the compact tensors of a sample.

Shapes: H W space. What a sample holds by type is listed in data/datasets.py (`Reader`).
"""

from __future__ import annotations

import struct
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from PIL import Image, UnidentifiedImageError
from torch import Tensor

from faar_ray.config.task_definitions import TaskDefinition
from faar_ray.errors import DataError
from faar_ray.tasks import IGNORE

Array = NDArray[Any]
PICTURES = (".png", ".tif", ".tiff", ".bmp", ".gif")
ARRAYS = (".npy", ".npz")
LABELS = (*PICTURES, *ARRAYS)
"""Suffixes of label files; JPEG is not among them, for it changes values."""
GREY_STEPS = {2: 85, 4: 17}
"""Pillow spreads grey PNGs of few bits over 0..255; steps between their values, by bits."""
UNIT_LENGTHS = (0.5, 1.5)
"""Lengths of vectors that are normals; grey, black and white of a picture are none of these."""
MOST_NAMED = 8


def read_label(path: Path, task: str, definition: TaskDefinition) -> Tensor:
    """The label of one image as a compact tensor.

    Raises:
        DataError: naming the file, the task and the value that does not fit.
    """
    raw = read_array(path, task)
    try:
        match definition.type:
            case "segmentation":
                return torch.from_numpy(_classes(raw, definition))
            case "binary" | "edge":
                return torch.from_numpy(_two_valued(raw, definition)[None])
            case "normals":
                return torch.from_numpy(_normals(raw))
            case _:
                return torch.from_numpy(_numbers(raw, definition)[None])
    except ValueError as fault:
        raise DataError(f"{path}: {task}: {fault}") from None


def read_array(path: Path, name: str = "") -> Array:
    """What a label file holds: (H, W), or (H, W, 3); of an npz the array of that name, or its only one.

    Raises:
        DataError: it cannot be read, or is of another shape.
    """
    try:
        array = _picture(path) if path.suffix.lower() in PICTURES else _array(path, name)
    except FileNotFoundError:
        raise DataError(f"{path}: no such file") from None
    except (OSError, ValueError, EOFError, SyntaxError, UnidentifiedImageError, Image.DecompressionBombError) as fault:
        raise DataError(f"{path}: cannot be read as a label ({fault})") from None

    if array.ndim == 3 and array.shape[2] == 1:
        array = array[..., 0]
    elif array.ndim == 3 and array.shape[2] != 3:
        array = array[0] if array.shape[0] == 1 else array.transpose(1, 2, 0) if array.shape[0] == 3 else array
    if array.ndim not in (2, 3) or (array.ndim == 3 and array.shape[2] != 3) or not array.size:
        raise DataError(f"{path}: must be of shape (H, W) or (H, W, 3), got {array.shape}")
    if array.dtype.kind not in "buif":
        raise DataError(f"{path}: must hold numbers, got {array.dtype}")
    return array


def _picture(path: Path) -> Array:
    """Indices of a palette, grey values, or (H, W, 3) colours."""
    with Image.open(path) as picture:
        if picture.mode in ("LA", "RGBA"):
            picture = picture.convert(picture.mode[:-1])  # type: ignore[assignment]
        array = np.array(picture)
    if step := GREY_STEPS.get(_grey_bits(path)):
        array //= step
    return array


def _grey_bits(path: Path) -> int:
    """Bits of a grey PNG, 0 of any other picture."""
    with path.open("rb") as file:
        head = file.read(26)
    bits, colour_type = struct.unpack_from("BB", head, 24) if head.startswith(b"\x89PNG") else (0, 0)
    return bits if colour_type == 0 else 0


def _array(path: Path, name: str) -> Array:
    loaded = np.load(path, allow_pickle=False)
    if isinstance(loaded, np.ndarray):
        return loaded
    with loaded:
        names = loaded.files
        chosen = names[0] if len(names) == 1 else name
        if chosen not in names:
            raise ValueError(f"must hold one array, or one called {name!r}, got {', '.join(names) or 'none'}")
        array: Array = loaded[chosen]
        return array


def packed(colours_HW3: Array) -> Array:
    """0xRRGGBB of each pixel."""
    wide = colours_HW3.astype(np.int64)
    number: Array = (wide[..., 0] << 16) | (wide[..., 1] << 8) | wide[..., 2]
    return number


def is_grey(raw: Array) -> bool:
    """Whether three channels are the same."""
    return raw.ndim == 3 and bool((raw == raw[..., :1]).all())


def _classes(raw: Array, definition: TaskDefinition) -> Array:
    """Numbers of classes (H, W) uint8; 255 = no label. Class k is the k-th of `values`, or of `colours`."""
    values: Sequence[int] = definition.values or range(len(definition.classes))
    ignored = [*definition.ignored_values]
    written: Callable[[Any], str] = str

    if raw.ndim == 3 and raw.dtype.kind == "f":
        raise ValueError("must be one channel, or colours, got three channels of floating-point numbers")
    if raw.ndim == 3 and is_grey(raw) and not definition.colours:
        raw = raw[..., 0]
    if raw.ndim == 3:
        if not definition.colours and definition.values is None:
            raise ValueError("is a picture in colours: give the classes' `colours` in dataset.yaml")
        raw, written = packed(raw), _as_colour
        if definition.values is None:
            values = [int(colour[1:], 16) for colour in definition.colours or ()]
    elif definition.ignore is None and IGNORE not in values:
        ignored.append(IGNORE)

    labels_HW = np.full(raw.shape, IGNORE, np.uint8)
    known_HW = np.isin(raw, ignored) | ((raw != raw) if raw.dtype.kind == "f" else False)
    for number, value in enumerate(values):
        chosen_HW = raw == value
        labels_HW[chosen_HW] = number
        known_HW |= chosen_HW
    if not known_HW.all():
        raise ValueError(_strangers(raw[~known_HW], written) + f" of no class: classes have {_listed(values, written)}")
    return labels_HW


def _two_valued(raw: Array, definition: TaskDefinition) -> Array:
    """0, 1, or 255 = no label, (H, W) uint8."""
    ignored = [*definition.ignored_values]
    if is_grey(raw):
        raw = raw[..., 0]
    if raw.ndim == 3:
        raise ValueError("must be of one channel, got colours")
    ignored_HW = np.isin(raw, ignored) | ((raw != raw) if raw.dtype.kind == "f" else False)
    no, yes = definition.values or (0, 1)
    no_HW, yes_HW = raw == no, raw == yes

    if definition.values is None and IGNORE not in ignored:
        bright_HW = raw == IGNORE
        if bright_HW.any() and (yes_HW & ~ignored_HW).any():
            raise ValueError("holds both 1 and 255: say in dataset.yaml `ignore: 255`, or which two are `values`")
        yes_HW |= bright_HW
    if not (known_HW := ignored_HW | no_HW | yes_HW).all():
        pair = "0, and 1 or 255" if definition.values is None else f"{no} and {yes}"
        raise ValueError(_strangers(raw[~known_HW], str) + f": must be {pair}, `ignore` apart")
    labels_HW: Array = np.where(ignored_HW, IGNORE, yes_HW).astype(np.uint8)
    return labels_HW


def _normals(raw: Array) -> Array:
    """Unit vectors (3, H, W) float32; zeros = no label. Bytes v are 2 v / 255 - 1."""
    if raw.ndim != 3:
        raise ValueError(f"must be of shape (H, W, 3), got {raw.shape}")
    bytes_ = raw.dtype == np.uint8
    vectors = raw.astype(np.float32) * (2 / 255) - 1 if bytes_ else raw.astype(np.float32)
    vectors[~np.isfinite(vectors).all(-1)] = 0
    length_HW1 = np.sqrt(np.square(vectors).sum(-1, keepdims=True))
    shortest, longest = UNIT_LENGTHS
    if not bytes_ and float(length_HW1.max()) > longest:
        raise ValueError(f"must hold unit vectors, got one of length {float(length_HW1.max()):.4g}")

    valid_HW1 = (length_HW1 >= shortest) & (length_HW1 <= longest)
    units = np.where(valid_HW1, vectors / np.where(valid_HW1, length_HW1, 1), 0)
    return np.ascontiguousarray(units.transpose(2, 0, 1), np.float32)


def _numbers(raw: Array, definition: TaskDefinition) -> Array:
    """Numbers times `scale`, (H, W) float32; pixels without label are 255 for depth, NaN otherwise."""
    if is_grey(raw):
        raw = raw[..., 0]
    if raw.ndim == 3:
        raise ValueError(f"must be of one channel, got {raw.shape}")
    unknown_HW = np.isin(raw, [*definition.ignored_values]) | ~np.isfinite(raw)
    numbers_HW = (raw.astype(np.float64) * definition.scale).astype(np.float32)
    if definition.type == "regression":
        return np.where(unknown_HW, np.float32(np.nan), numbers_HW)
    numbers_HW[numbers_HW == IGNORE] = np.nextafter(np.float32(IGNORE), np.float32(0))  # a depth, not its absence
    return np.where(unknown_HW, np.float32(IGNORE), numbers_HW)


def _strangers(values: Array, written: Callable[[Any], str]) -> str:
    found, counts = np.unique(values, return_counts=True)
    plural = "s" if len(found) > 1 else ""
    return f"value{plural} {_listed(found.tolist(), written)} ({counts.sum()} pixels)"


def _listed(values: Sequence[Any], written: Callable[[Any], str]) -> str:
    names = [written(value) for value in values[:MOST_NAMED]]
    return ", ".join(names) + (f", ... ({len(values)} in all)" if len(values) > MOST_NAMED else "")


def _as_colour(value: int) -> str:
    return f"#{int(value):06x}"
