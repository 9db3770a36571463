"""What a data set is: splits of samples with dense labels. `DATASETS` (config/registries.py) lists those there are."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Literal, Protocol, runtime_checkable

import torch
from torch import Tensor

from faar_ray.config.registries import DATASETS, load_builder
from faar_ray.config.trial import DataConfig
from faar_ray.errors import DataError

Split = Literal["train", "val", "test"]
SPLITS: tuple[Split, ...] = ("train", "val", "test")


class Reader(Protocol):
    """One split of a data set."""

    classes: Mapping[str, Sequence[str]]
    """Names of the classes, for the tasks that have classes."""

    def __len__(self) -> int:
        """Number of samples."""

    def sample(self, index: int, names: Sequence[str]) -> Mapping[str, Tensor]:
        """The image and the labels of a sample at its own size, stored compactly.

        Shapes: image (3, H, W) uint8; semseg and human_parts (H, W) uint8, 255 = ignore; saliency and edge (1, H, W)
        uint8, 0 or 1; normals (3, H, W) int8, 127ths of unit vectors, zeros = ignore; depth (1, H, W) float16, metres.

        Args:
            index: of the sample, from 0.
            names: `image` and tasks.
        """


@runtime_checkable
class ColumnReader(Protocol):
    """A reader that holds whole columns, so that no sample has to be copied on its own."""

    def columns(self, names: Sequence[str]) -> Mapping[str, Tensor]:
        """Each quantity of all samples, stacked: (samples, ...)."""


def open_split(config: DataConfig, split: Split) -> Reader:
    """The reader of a split; nothing is loaded yet.

    Raises:
        DataError: a data set that cannot be read here, or a task that it has no labels for.
    """
    check_labels(config)
    entry = DATASETS[config.name]
    assert entry.open is not None
    reader: Reader = load_builder(entry.open)(config, split)
    return reader


def check_labels(config: DataConfig) -> None:
    """Refuse a data set that cannot be read, or a task that it has no labels for.

    Raises:
        DataError: naming it.
    """
    if DATASETS[config.name].open is None:
        readable = ", ".join(name for name, entry in DATASETS.items() if entry.open is not None)
        raise DataError(f"data.name: must be one of {readable}, got {config.name!r}")
    tasks = DATASETS[config.name].channels
    unknown = [task for task in config.tasks if task not in tasks]
    if unknown:
        raise DataError(f"data.tasks: {config.name} has {', '.join(tasks)}, got {', '.join(unknown)}")


def read_columns(reader: Reader, names: Sequence[str], size: int) -> dict[str, Tensor]:
    """Every quantity of a split in memory, (samples, ...) each.

    Raises:
        DataError: a sample lacks a label, or is not `size` x `size`.
    """
    if isinstance(reader, ColumnReader):
        return dict(reader.columns(names))

    samples = [reader.sample(index, names) for index in range(len(reader))]
    for index, sample in enumerate(samples):
        if lacking := [name for name in names if name not in sample]:
            raise DataError(f"sample {index} has no {', '.join(lacking)}")
        if odd := [name for name in names if sample[name].shape[-2:] != (size, size)]:
            raise DataError(f"{odd[0]} of sample {index} must be {size}x{size}, got {tuple(sample[odd[0]].shape[-2:])}")
    return {name: torch.stack([sample[name] for sample in samples]) for name in names}
