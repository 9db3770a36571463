"""What one sample says of a data set: sizes, values, faults. Small enough to send between processes."""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor
from torch.utils.data import Dataset

from faar_ray.config.data_section import DataConfig
from faar_ray.config.task_definitions import TaskType
from faar_ray.data.datasets import FilePaths, FileReader, Inspectable, Inspection, Reader
from faar_ray.data.photographs.files import check_sizes
from faar_ray.errors import DataError
from faar_ray.tasks import IGNORE, Task, tasks_of

Array = np.ndarray[Any, Any]
KINDS: dict[TaskType, tuple[str, int, tuple[torch.dtype, ...]]] = {
    "segmentation": ("(H, W) uint8", 2, (torch.uint8,)),
    "binary": ("(1, H, W) uint8", 3, (torch.uint8,)),
    "edge": ("(1, H, W) uint8", 3, (torch.uint8,)),
    "normals": ("(3, H, W) int8 or float32", 3, (torch.int8, torch.float32)),
    "depth": ("(1, H, W) float16 or float32", 3, (torch.float16, torch.float32)),
    "regression": ("(1, H, W) float32", 3, (torch.float32,)),
}
"""What a label must be, by the type of its task (`Reader.sample`)."""
COUNTED = ("segmentation", "binary", "edge")


@dataclass(frozen=True, slots=True)
class ImageFacts:
    """Of one image."""

    size: tuple[int, int]
    """Height and width."""
    mean: Array
    """Of each channel, 0..1."""
    square_mean: Array
    """Of the squares of each channel."""


@dataclass(frozen=True, slots=True)
class LabelFacts:
    """Of one label."""

    pixels: int
    labelled: int
    counts: Array | None = None
    """Pixels of each value (256,), of tasks with classes, `IGNORE` apart."""
    low: float = math.inf
    high: float = -math.inf
    unit: str = ""
    """As in the file."""


@dataclass(frozen=True, slots=True)
class SampleFacts:
    """Of one sample."""

    image: ImageFacts | None
    """None: it cannot be read."""
    labels: Mapping[str, LabelFacts | None]
    """None: there is none, or it cannot be read."""
    faults: tuple[str, ...]
    notes: tuple[str, ...]


class SurveyedSamples(Dataset[SampleFacts]):
    """The facts of each sample of a reader; what runs in the loader's processes."""

    def __init__(self, reader: Reader, config: DataConfig, missing: frozenset[Path] = frozenset()) -> None:
        self.reader, self.tasks, self.missing = reader, tasks_of(config), missing

    def __getitem__(self, index: int) -> SampleFacts:
        """Read the image and each label by itself, so that one fault does not hide another."""
        faults: list[str] = []
        notes: list[str] = []
        image = self._read(index, "image", faults)
        labels: dict[str, LabelFacts | None] = {}
        for name, task in self.tasks.items():
            label = self._read(index, name, faults)
            labels[name] = None
            if label is None:
                continue
            if found := list(label_faults(task, label, image, lambda quantity: self._place(index, quantity))):
                faults += found
                continue
            inspection = self._inspect(index, name)
            faults += [f"{self._place(index, name)}: {name}: {text}" for text in inspection.faults]
            notes += [f"{self._place(index, name)}: {name}: {text}" for text in inspection.notes]
            labels[name] = label_facts(task, label, inspection.unit)
        return SampleFacts(None if image is None else image_facts(image), labels, tuple(faults), tuple(notes))

    def _read(self, index: int, name: str, faults: list[str]) -> Tensor | None:
        if isinstance(self.reader, FilePaths) and not self.missing.isdisjoint(self.reader.files(index, name)):
            return None  # told already
        try:
            value = self.reader.sample(index, (name,))[name]
        except DataError as error:
            faults.append(str(error))
            return None
        if name == "image" and value is None:
            faults.append(f"{self._place(index, name)}: has no image")
        return value

    def _inspect(self, index: int, task: str) -> Inspection:
        return self.reader.inspect(index, task) if isinstance(self.reader, Inspectable) else Inspection()

    def _place(self, index: int, name: str) -> str:
        """The file of a quantity, or the sample's name."""
        paths = self.reader.files(index, name) if isinstance(self.reader, FilePaths) else []
        own = isinstance(self.reader, FileReader)
        id = self.reader.id(index) if isinstance(self.reader, FileReader) else f"sample {index}"
        if not paths:
            return id
        return f"{paths[0]}: {id}" if own and paths[0].suffix == ".parquet" else str(paths[0])


def image_facts(image_3HW: Tensor) -> ImageFacts:
    """Size, mean and mean square of an image (3, H, W) uint8."""
    levels = image_3HW.double() / 255
    height, width = image_3HW.shape[-2:]
    return ImageFacts((height, width), levels.mean((1, 2)).numpy(), levels.square().mean((1, 2)).numpy())


def label_faults(task: Task, label: Tensor, image: Tensor | None, place: Any) -> Iterator[str]:
    """What of a label breaks the promise of its reader."""
    words, axes, dtypes = KINDS[task.type]
    channels = 3 if task.type == "normals" else 1
    if label.dim() != axes or label.dtype not in dtypes or (axes == 3 and label.shape[0] != channels):
        yield f"{place(task.name)}: {task.name}: must be {words}, got {tuple(label.shape)} {label.dtype}"
        return
    try:
        check_sizes({"image": image, task.name: label}, lambda name: place(name))
    except DataError as error:
        yield str(error)
        return
    if task.type in COUNTED:
        classes = task.channels if task.type == "segmentation" else 2
        odd = torch.unique(label[(label >= classes) & (label != IGNORE)]).tolist()
        if odd:
            listed = ", ".join(map(str, odd[:8]))
            yield f"{place(task.name)}: {task.name}: must be 0..{classes - 1}, or {IGNORE} to ignore, got {listed}"


def label_facts(task: Task, label: Tensor, unit: str = "") -> LabelFacts:
    """Counts and range of a label that has no faults."""
    if task.type in COUNTED:
        counts = torch.bincount(label.flatten(), minlength=IGNORE + 1)
        pixels, ignored = label.numel(), int(counts[IGNORE])
        counts[IGNORE] = 0
        return LabelFacts(pixels, pixels - ignored, counts.numpy())
    pixels = label.shape[-2] * label.shape[-1]
    if task.type == "normals":
        return LabelFacts(pixels, int((label != 0).any(0).sum()))

    known = label[label.isfinite() & ((label != IGNORE) if task.type == "depth" else True)]
    if not known.numel():
        return LabelFacts(pixels, 0, unit=unit)
    return LabelFacts(pixels, known.numel(), low=float(known.min()), high=float(known.max()), unit=unit)
