"""Data sets: splits of samples with dense labels. `DATASETS` (config/registries.py) lists them."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Literal, Protocol, runtime_checkable

import torch
from torch import Tensor

from faar_ray.config.registries import DATASETS, load_builder
from faar_ray.config.trial import DataConfig
from faar_ray.errors import ConfigError, DataError

Split = Literal["train", "val", "test"]
SPLITS: tuple[Split, ...] = ("train", "val", "test")


class Reader(Protocol):
    """One split of a data set."""

    classes: Mapping[str, Sequence[str]]
    """Names of the classes, by task (semseg, human_parts); the number of names is the number of output channels."""

    def __len__(self) -> int:
        """Number of samples."""

    def sample(self, index: int, names: Sequence[str]) -> Mapping[str, Tensor | None]:
        """The image and the labels of a sample at its own size, stored compactly.

        image (3, H, W) uint8; semseg and human_parts (H, W) uint8, 255 = ignore; saliency and edge (1, H, W) uint8,
        0 or 1; normals (3, H, W) int8, 127ths of unit vectors, zeros = ignore; depth (1, H, W) float16, metres.
        A label that the sample lacks is None.

        Args:
            index: of the sample, from 0.
            names: `image` and tasks.
        """


@runtime_checkable
class ColumnReader(Protocol):
    """A reader that can give a whole split at once, which is quicker than sample by sample."""

    def columns(self, names: Sequence[str]) -> Mapping[str, Tensor]:
        """Each quantity of all samples, stacked: (samples, ...)."""


def open_split(config: DataConfig, split: Split) -> Reader:
    """The reader of a split; it loads nothing before it is asked for samples.

    Raises:
        ConfigError: a data set without a reader, or a task that it has no labels for.
    """
    check_labels(config)
    build = DATASETS[config.name].open
    assert build is not None
    reader: Reader = load_builder(build)(config, split)
    return reader


def check_labels(config: DataConfig) -> None:
    """Check that a data set has a reader, and labels for the tasks.

    Raises:
        ConfigError: naming the key, its possible values, and the value.
    """
    entry = DATASETS[config.name]
    if entry.open is None:
        readable = ", ".join(name for name, other in DATASETS.items() if other.open is not None)
        raise ConfigError(f"data.name: must be one of {readable}, got {config.name!r}")

    unknown = [task for task in config.tasks if task not in entry.channels]
    if unknown:
        raise ConfigError(f"data.tasks: {config.name} has {', '.join(entry.channels)}, got {', '.join(unknown)}")


def read_columns(reader: Reader, names: Sequence[str], size: int) -> dict[str, Tensor]:
    """The image and labels of a whole split, (samples, ...) each.

    Raises:
        DataError: a sample lacks a label, or is not `size` x `size`.
    """
    if isinstance(reader, ColumnReader):
        return dict(reader.columns(names))

    samples = [_whole_sample(reader, index, names, size) for index in range(len(reader))]
    return {name: torch.stack([sample[name] for sample in samples]) for name in names}


def _whole_sample(reader: Reader, index: int, names: Sequence[str], size: int) -> dict[str, Tensor]:
    sample = {name: value for name, value in reader.sample(index, names).items() if value is not None}
    if missing := [name for name in names if name not in sample]:
        raise DataError(f"sample {index} has no {', '.join(missing)}")
    for name in names:
        if sample[name].shape[-2:] != (size, size):
            raise DataError(f"{name} of sample {index} must be {size}x{size}, got {tuple(sample[name].shape[-2:])}")
    return sample
