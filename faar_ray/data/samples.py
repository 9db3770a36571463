"""Photographs read from files or shards when they are needed, augmented, and put together by torch's DataLoader.

What an image looks like depends on (seed, epoch, index) alone, so it is the same for any number of loader processes and
training workers, and in a resumed run.
"""

from __future__ import annotations

import os
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import partial

import torch
from torch import Tensor
from torch.utils.data import DataLoader, Dataset, Sampler

from faar_ray.config.data_section import DataConfig
from faar_ray.data.datasets import FileReader, Reader
from faar_ray.data.dense import decode, parts_of
from faar_ray.data.transforms import blank_label, for_evaluation, for_training, padded
from faar_ray.errors import DataError
from faar_ray.seeding import private
from faar_ray.tasks import Task, tasks_of

Sample = dict[str, Tensor]
PREFETCHED_BATCHES = 2
LABEL_SIZE = "label_size"


@dataclass(frozen=True, slots=True)
class Draw:
    """Names what is read: a sample, and the seed and epoch of its augmentation; None: it is evaluated."""

    index: int
    seed: int | None = None
    epoch: int = 0
    original: bool = False
    """Whether labels keep their own size."""


class DrawnSamples(Dataset[Sample]):
    """Samples as compact tensors of one size; what runs in the loader's processes."""

    def __init__(self, reader: Reader, config: DataConfig) -> None:
        self.reader, self.config, self.tasks = reader, config, tasks_of(config)

    def __getitem__(self, draw: Draw) -> Sample:
        """One sample, augmented where the draw says so."""
        sample = self.read(draw.index)
        if draw.seed is None:
            return for_evaluation(sample, self.tasks, self.config, labels=not draw.original)
        return for_training(sample, self.tasks, self.config, private("augment", draw.seed, draw.epoch, draw.index))

    def read(self, index: int) -> Sample:
        """A sample at its own size; a label that it lacks is ignored everywhere.

        Raises:
            DataError: it has no image, or a label of another size than its image.
        """
        names = ("image", *self.tasks)
        found = self.reader.sample(index, names)
        image = found.get("image")
        if image is None:
            raise DataError(f"sample {index} has no image")
        height, width = image.shape[-2:]

        sample = {"image": image}
        for name, task in self.tasks.items():
            label = found.get(name)
            if label is not None and label.shape[-2:] != (height, width):
                labelled = f"{label.shape[-2]}x{label.shape[-1]}"
                raise DataError(f"{name} of sample {index} must be {height}x{width}, as its image, got {labelled}")
            sample[name] = blank_label(task, (height, width)) if label is None else label
        return sample


def collated(samples: Sequence[Sample], tasks: Mapping[str, Task]) -> Sample:
    """Samples as one batch; labels that keep their own sizes are padded to the largest, with `label_size` (B, 2)."""
    sizes = [next((sample[name].shape[-2:] for name in tasks), sample["image"].shape[-2:]) for sample in samples]
    batch = {"image": torch.stack([sample["image"] for sample in samples])}
    if all(size == batch["image"].shape[-2:] for size in sizes):
        return batch | {name: torch.stack([sample[name] for sample in samples]) for name in tasks}

    largest = max(size[0] for size in sizes), max(size[1] for size in sizes)
    for name, task in tasks.items():
        batch[name] = torch.stack([padded(sample[name], task, largest) for sample in samples])
    return batch | {LABEL_SIZE: torch.tensor(sizes)}


class EpochBatches(Sampler[list[Draw]]):
    """The batches of one pass; `draws` is set anew before each."""

    def __init__(self) -> None:
        self.draws: Sequence[list[Draw]] = ()

    def __iter__(self) -> Iterator[list[Draw]]:
        """The draws of each batch."""
        return iter(self.draws)

    def __len__(self) -> int:
        """Number of batches."""
        return len(self.draws)


class SampleDataset:
    """A split in files or shards (`SplitData`); memory holds the batches that are read ahead, and nothing else."""

    def __init__(self, reader: Reader, config: DataConfig) -> None:
        self.samples = DrawnSamples(reader, config)
        self.config = config
        self.tasks: Mapping[str, Task] = self.samples.tasks
        self._sampler = EpochBatches()
        self._loader: DataLoader[Sample] | None = None

    def __len__(self) -> int:
        """Number of images."""
        return len(self.samples.reader)

    def __getitem__(self, index: int) -> Sample:
        """One decoded sample, without augmentation."""
        return self._decoded(Draw(range(len(self))[index]))

    def augmented(self, index: int, seed: int, epoch: int) -> Sample:
        """One decoded sample as training sees it in an epoch."""
        return self._decoded(Draw(index, seed, epoch))

    def _decoded(self, draw: Draw) -> Sample:
        batch = decode({name: value[None] for name, value in self.samples[draw].items()}, self.tasks)
        return {name: value[0] for name, value in batch.items()}

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
    ) -> Iterator[Sample]:
        """Batches as `SplitData` promises."""
        order = torch.arange(len(self))
        if train:
            order = torch.randperm(len(self), generator=private("batches", seed, epoch))
        parts = list(parts_of(order, batch_size, worker, workers))
        drawn_seed = seed if train else None
        self._sampler.draws = [[Draw(int(i), drawn_seed, epoch, original) for i in part] for part in parts if len(part)]

        for compact in self._open_loader():
            sizes = {} if LABEL_SIZE not in compact else {LABEL_SIZE: compact.pop(LABEL_SIZE)}
            yield decode(compact, self.tasks) | sizes

    def _open_loader(self) -> DataLoader[Sample]:
        """The loader, kept over epochs with its processes; its own generator leaves the global state alone."""
        if self._loader is None:
            processes = loader_processes(self.config, self.samples.reader)
            self._loader = DataLoader(
                self.samples,
                batch_sampler=self._sampler,
                num_workers=processes,
                prefetch_factor=PREFETCHED_BATCHES if processes else None,
                persistent_workers=processes > 0,
                collate_fn=partial(collated, tasks=self.tasks),
                pin_memory=torch.cuda.is_available(),
                multiprocessing_context="spawn" if processes else None,
                generator=torch.Generator(),
            )
        return self._loader


def loader_processes(config: DataConfig, reader: Reader) -> int:
    """`data.loader_workers`; auto: up to four, one less than this process has CPUs, for files; none otherwise."""
    if config.loader_workers != "auto":
        return config.loader_workers
    if not isinstance(reader, FileReader):
        return 0
    cpus = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    return min(4, cpus - 1)
