"""Photographs read from files or shards when they are needed, augmented, and put together by torch's DataLoader.

What an image looks like depends on (seed, epoch, index) alone, so it is the same for any number of loader processes and
training workers, and in a resumed run.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence

import torch

from faar_ray.config.data_section import DataConfig
from faar_ray.data.datasets import FileReader, Reader, Split
from faar_ray.data.dense import decode, parts_of
from faar_ray.data.loader import LABEL_SIZE, Draw, Loader, Sample, automatic_processes, ready_on
from faar_ray.data.transforms import blank_label, for_evaluation, for_training, padded
from faar_ray.errors import DataError
from faar_ray.seeding import private
from faar_ray.tasks import Task, tasks_of


class DrawnSamples:
    """Samples as compact tensors of one size; what runs in the loader's processes."""

    def __init__(self, reader: Reader, config: DataConfig) -> None:
        self.reader, self.config, self.tasks = reader, config, tasks_of(config)

    def __getitem__(self, draw: Draw) -> Sample:
        """One sample, augmented where the draw says so."""
        sample = self.read(draw.index)
        if draw.seed is None:
            return for_evaluation(sample, self.tasks, self.config, labels=not draw.original)
        return for_training(sample, self.tasks, self.config, private("augment", draw.seed, draw.epoch, draw.index))

    def batch(self, draws: Sequence[Draw]) -> Sample:
        """Samples as one batch."""
        return collated([self[draw] for draw in draws], self.tasks)

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


class SampleDataset:
    """A split in files or shards (`SplitData`); memory holds the batches that are read ahead, and nothing else."""

    def __init__(self, samples: DrawnSamples, split: Split, loader: Loader) -> None:
        self.samples, self._split, self._loader = samples, split, loader
        self.tasks: Mapping[str, Task] = samples.tasks

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
        return {name: value[0] for name, value in decode(self.samples.batch([draw]), self.tasks).items()}

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
    ) -> Iterator[Sample]:
        """Batches as `SplitData` promises."""
        order = torch.arange(len(self))
        if train:
            order = torch.randperm(len(self), generator=private("batches", seed, epoch))
        parts = parts_of(order, batch_size, worker, workers)
        drawn_seed = seed if train else None
        draws = [[Draw(int(i), drawn_seed, epoch, original) for i in part] for part in parts if len(part)]

        for compact in ready_on(device, self._loader.batches(self._split, draws)):
            sizes = {} if LABEL_SIZE not in compact else {LABEL_SIZE: compact.pop(LABEL_SIZE)}
            yield decode(compact, self.tasks) | sizes

    def close(self) -> None:
        """End the loader's processes, which splits that were loaded together share."""
        self._loader.close()


def sample_datasets(
    readers: Mapping[Split, Reader], config: DataConfig, processes: int = 0
) -> dict[Split, SampleDataset]:
    """Splits that are read by the same processes, one pass at a time."""
    samples = {split: DrawnSamples(reader, config) for split, reader in readers.items()}
    loader = Loader(samples, processes)
    return {split: SampleDataset(of_split, split, loader) for split, of_split in samples.items()}


def loader_processes(config: DataConfig, reader: Reader) -> int:
    """`data.loader_workers`; auto: from the CPUs for photographs, none for other readers."""
    if config.loader_workers != "auto":
        return config.loader_workers
    return automatic_processes() if isinstance(reader, FileReader) else 0
