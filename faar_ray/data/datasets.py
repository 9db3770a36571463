"""Data sets: splits of samples with dense labels. `DATASETS` (config/registries.py) lists them."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Literal, Protocol, runtime_checkable

import torch
from torch import Tensor

from faar_ray.tasks import Task

Split = Literal["train", "val", "test"]
SPLITS: tuple[Split, ...] = ("train", "val", "test")


class Reader(Protocol):
    """One split of a data set."""

    def __len__(self) -> int:
        """Number of samples."""

    def sample(self, index: int, names: Sequence[str]) -> Mapping[str, Tensor | None]:
        """The image and the labels of a sample at its own size, stored compactly.

        image (3, H, W) uint8; by type: segmentation (H, W) uint8, 255 = ignore; binary and edge (1, H, W) uint8, 0 or
        1, 255 = ignore; normals (3, H, W) int8, 127ths of unit vectors, or float32, zeros = ignore; depth (1, H, W)
        float16 or float32, 255 = ignore; regression (1, H, W) float32, NaN = ignore. A label that the sample lacks is
        None: all of it is ignored.

        Args:
            index: of the sample, from 0.
            names: `image` and tasks.

        Raises:
            DataError: naming the file that is missing, damaged, or does not fit.
        """


@runtime_checkable
class ColumnReader(Protocol):
    """A reader that can give a whole split at once, which is quicker than sample by sample; all of one size."""

    def columns(self, names: Sequence[str]) -> Mapping[str, Tensor]:
        """Each quantity of all samples, stacked: (samples, ...)."""


@runtime_checkable
class FileReader(Reader, Protocol):
    """A reader of photographs in files: each sample has a name and one encoded image."""

    def id(self, index: int) -> str:
        """Name of a sample, e.g. the stem of its files."""

    def image_bytes(self, index: int) -> bytes:
        """The image's file, as it lies."""


@runtime_checkable
class FilePaths(Protocol):
    """A reader that knows where each of its images and labels lies."""

    def files(self, index: int, name: str) -> list[Path]:
        """The files that the image or a label is made from, whether they exist or not; they are not opened."""


@runtime_checkable
class Versioned(Protocol):
    """A reader that knows which data it reads, so that they may be kept decoded (`data.cache`)."""

    def version(self) -> str:
        """A word that changes when samples do."""


@dataclass(frozen=True, slots=True)
class Inspection:
    """What a label file says beyond the label that it becomes."""

    unit: str = ""
    """In which its values are written; "": of no matter."""
    notes: tuple[str, ...] = ()
    """What is unusual, but read."""
    faults: tuple[str, ...] = ()
    """What can hardly be meant."""


@runtime_checkable
class Inspectable(Protocol):
    """A reader whose label files may hold more than the labels that they become."""

    def inspect(self, index: int, task: str) -> Inspection:
        """Look at a label file anew, for `data check`.

        Raises:
            DataError: it cannot be read.
        """


class SplitData(Protocol):
    """A split as training and evaluation read it; samples hold what data/dense.py lists."""

    tasks: Mapping[str, Task]

    def __len__(self) -> int:
        """Number of images."""

    def __getitem__(self, index: int, /) -> dict[str, Tensor]:
        """One sample as it is evaluated: without augmentation."""

    def augmented(self, index: int, seed: int, epoch: int) -> dict[str, Tensor]:
        """One sample as training sees it in an epoch."""

    def batches(
        self,
        *,
        batch_size: int,
        seed: int,
        epoch: int,
        train: bool,
        worker: int = 0,
        workers: int = 1,
        original: bool = False,
        device: torch.device | None = None,
    ) -> Iterator[dict[str, Tensor]]:
        """Batches of samples, (B, ...) each; the last one may be smaller.

        `train=True`: order and augmentation depend on (seed, epoch, index) and on nothing else. `train=False`: in
        order; with `original`, labels have their own size: `label_size` (B, 2) holds height and width, beyond which
        they are ignored. Of several workers each gets every `workers`-th row of the same batches; its part of the last
        one may be empty, or missing where it is evaluated. With `device` they are there, but for `label_size`.

        One pass at a time: of splits that were loaded together, a new pass ends the one before.
        """

    def close(self) -> None:
        """End the processes that read samples."""
