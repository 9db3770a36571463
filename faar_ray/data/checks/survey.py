"""A whole data set read once: what its published splits hold, and what is wrong with them."""

from __future__ import annotations

import math
import os
import time
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import torch
from torch.utils.data import Dataset

from faar_ray.config.data_section import DataConfig
from faar_ray.data.checks.missing import MissingFiles, missing_files
from faar_ray.data.checks.sample_facts import LabelFacts, SampleFacts, SurveyedSamples
from faar_ray.data.datasets import FileReader, Reader, Split
from faar_ray.data.loader import read_in_order
from faar_ray.data.loading import ids_of, published_readers
from faar_ray.data.samples import sample_datasets
from faar_ray.tasks import IGNORE

Array = np.ndarray[Any, Any]
Place = tuple[Split, int]
Found = tuple[Split, SampleFacts]
FEW_SAMPLES = 256
"""Up to which this process reads by itself, for others take seconds to start."""
MOST_TIMED, LONGEST_S = 64, 5.0
"""Images, and seconds, from which the speed of reading is measured."""


@dataclass(slots=True)
class TaskTotals:
    """Labels of one task in one split."""

    images: int = 0
    """With at least one labelled pixel."""
    pixels: int = 0
    labelled: int = 0
    counts: Array = field(default_factory=lambda: np.zeros(IGNORE + 1, np.int64))
    """Pixels of each value, of tasks with classes."""
    class_images: Array = field(default_factory=lambda: np.zeros(IGNORE + 1, np.int64))
    """Images that have each value."""
    low: float = math.inf
    high: float = -math.inf
    units: Counter[str] = field(default_factory=Counter)
    """Files by the unit that they were written in."""

    def add(self, facts: LabelFacts) -> None:
        """Count one label."""
        self.images += facts.labelled > 0
        self.pixels += facts.pixels
        self.labelled += facts.labelled
        if facts.counts is not None:
            self.counts += facts.counts
            self.class_images += facts.counts > 0
        self.low, self.high = min(self.low, facts.low), max(self.high, facts.high)
        self.units[facts.unit] += bool(facts.unit)


@dataclass(slots=True)
class SplitTotals:
    """One published split."""

    tasks: dict[str, TaskTotals]
    samples: int = 0
    read: int = 0
    """Images that could be read."""
    sizes: Counter[tuple[int, int]] = field(default_factory=Counter)
    mean: Array = field(default_factory=lambda: np.zeros(3))
    square_mean: Array = field(default_factory=lambda: np.zeros(3))
    """Averages over images, each of the same weight."""

    def add(self, facts: SampleFacts) -> None:
        """Count one sample."""
        self.samples += 1
        if facts.image is not None:
            self.read += 1
            self.sizes[facts.image.size] += 1
            self.mean += (facts.image.mean - self.mean) / self.read
            self.square_mean += (facts.image.square_mean - self.square_mean) / self.read
        for name, label in facts.labels.items():
            if label is not None:
                self.tasks[name].add(label)

    @property
    def std(self) -> Array:
        """Of each channel, 0..1."""
        variance: Array = (self.square_mean - self.mean**2).clip(0)
        return np.sqrt(variance)


@dataclass(slots=True)
class Survey:
    """What was found."""

    splits: dict[Split, SplitTotals]
    missing: list[MissingFiles]
    faults: list[str] = field(default_factory=list)
    notes: list[str] = field(default_factory=list)


def survey(config: DataConfig, *, processes: int | None = None, on_sample: Callable[[], None] = lambda: None) -> Survey:
    """Read all samples of the published splits.

    Args:
        config: the data set and its tasks, on this machine.
        processes: that read; None: CPUs less one, none for few images.
        on_sample: called after each one.

    Raises:
        ConfigError, DataError: a split that cannot be opened at all.
    """
    readers = published_readers(config)
    missing = missing_files(readers.values(), ("image", *config.tasks))
    absent = frozenset(path for one in missing for path in one.paths)
    totals = {split: SplitTotals({name: TaskTotals() for name in config.tasks}) for split in readers}
    found = Survey(totals, missing)
    samples = AllSamples({split: SurveyedSamples(reader, config, absent) for split, reader in readers.items()})
    places = [(split, index) for split, reader in readers.items() for index in range(len(reader))]
    if processes is None:
        processes = 0 if len(places) <= FEW_SAMPLES else (os.cpu_count() or 1) - 1
    with one_thread():
        for split, facts in read_in_order(samples, places, processes):
            totals[split].add(facts)
            found.faults += facts.faults
            found.notes += facts.notes
            on_sample()
    found.faults += _faults_of_splits(config, readers, totals)
    return found


class AllSamples(Dataset[Found]):
    """The samples of several splits, by split and index."""

    def __init__(self, splits: dict[Split, SurveyedSamples]) -> None:
        self.splits = splits

    def __getitem__(self, place: Place) -> Found:
        """The split, and the facts of a sample."""
        split, index = place
        return split, self.splits[split][index]


@contextmanager
def one_thread() -> Iterator[None]:
    """Reading as in a loader's process: on small tensors several threads wait for each other."""
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        yield
    finally:
        torch.set_num_threads(threads)


def _faults_of_splits(
    config: DataConfig, readers: dict[Split, Reader], totals: dict[Split, SplitTotals]
) -> Iterator[str]:
    """An image in two splits; a task without any label; depth in several units."""
    places: dict[str, Split] = {}
    for split, reader in readers.items():
        if not isinstance(reader, FileReader):
            continue
        twice = [id for id in ids_of(reader) if places.setdefault(id, split) != split]
        if twice:
            yield f"{config.root}: {len(twice):,} images of {split} are in {places[twice[0]]} too, first {twice[0]}"

    for name in config.tasks:
        for split, total in totals.items():
            task = total.tasks[name]
            if task.pixels and not task.labelled:
                yield f"{config.root}: {name}: no pixel of {split} has a label"
            if len(units := +task.units) > 1:
                listed = ", ".join(f"{count:,} files in {unit}" for unit, count in units.most_common())
                yield f"{config.root}: {name}: {split} mixes units: {listed}"


def images_per_second(config: DataConfig, reader: Reader, indices: Sequence[int]) -> float:
    """How many images a second one process reads, augments and resizes."""
    data, count = sample_datasets({"train": reader}, config)["train"], 0
    with one_thread():
        data.augmented(indices[0], config.seed, 0)  # the first one also sets things up
        started = time.perf_counter()
        for index in indices[:MOST_TIMED]:
            data.augmented(index, config.seed, 0)
            count += 1
            if time.perf_counter() - started > LONGEST_S:
                break
        return count / (time.perf_counter() - started)
