"""torch's DataLoader over the splits of a data set: its processes, how they start and end, how their faults arrive.

Processes come from a fork server, which has imported torch once: a second one starts in 0.2 s and 30 MB, not in 6 s and
450 MB as with `spawn`, and the next trial of this process finds the server running.
"""

from __future__ import annotations

import multiprocessing
import os
import signal
import sys
import warnings
from collections.abc import Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass
from multiprocessing.connection import wait
from threading import Thread
from typing import Any, Generic, Protocol, TypeVar

import torch
from torch import Tensor
from torch.utils.data import DataLoader, Dataset, Sampler

from faar_ray.data.datasets import Split
from faar_ray.errors import FaarRayError

Sample = dict[str, Tensor]
T = TypeVar("T")
LABEL_SIZE = "label_size"
"""Of a batch, the one entry that stays on the host."""
PREFETCHED_BATCHES, PREFETCHED_SAMPLES = 2, 16
MOST_PROCESSES = 4


@dataclass(frozen=True, slots=True)
class Draw:
    """Names what is read: a sample, and the seed and epoch of its augmentation; None: it is evaluated."""

    index: int
    seed: int | None = None
    epoch: int = 0
    original: bool = False
    """Whether labels keep their own size."""


@dataclass(frozen=True, slots=True)
class BatchDraw:
    """The samples of one batch, all of one split."""

    split: Split
    draws: tuple[Draw, ...]


class BatchSource(Protocol):
    """Reads batches of one split."""

    def batch(self, draws: Sequence[Draw]) -> Sample:
        """Compact samples, stacked."""


class FaultsAsValues(Dataset[T | FaarRayError], Generic[T]):
    """A data set that gives the fault that a person must mend: torch would raise it with a traceback in its message."""

    def __init__(self, samples: Dataset[T]) -> None:
        self.samples = samples

    def __getitem__(self, place: Any) -> T | FaarRayError:
        """What the data set gives, or why it cannot."""
        try:
            return self.samples[place]
        except FaarRayError as fault:
            return fault


class DrawnBatches(Dataset[Sample]):
    """Batches of all splits; what runs in the loader's processes."""

    def __init__(self, sources: Mapping[Split, BatchSource]) -> None:
        self.sources = dict(sources)

    def __getitem__(self, drawn: BatchDraw) -> Sample:
        """A batch."""
        return self.sources[drawn.split].batch(drawn.draws)


class Pass(Sampler[BatchDraw]):
    """The batches of one pass; `draws` is set anew before each."""

    def __init__(self) -> None:
        self.draws: Sequence[BatchDraw] = ()

    def __iter__(self) -> Iterator[BatchDraw]:
        """The draws of each batch."""
        return iter(self.draws)

    def __len__(self) -> int:
        """Number of batches."""
        return len(self.draws)


class Loader:
    """One pass at a time, over any of the splits; its processes are kept over passes, until `close`."""

    def __init__(self, sources: Mapping[Split, BatchSource], processes: int) -> None:
        self.processes = processes
        self._batches = FaultsAsValues(DrawnBatches(sources))
        self._sampler = Pass()
        self._passes = 0
        self._loader: DataLoader[Sample | FaarRayError] | None = None

    def batches(self, split: Split, draws: Sequence[Sequence[Draw]]) -> Iterator[Sample]:
        """The batches that are drawn, in order.

        Raises:
            FaarRayError: as the reader raised it.
            RuntimeError: another pass has begun, whose batches these would be.
        """
        loader = self._open()
        self._sampler.draws = [BatchDraw(split, tuple(of_batch)) for of_batch in draws]
        self._passes += 1
        this = self._passes

        with count_accepted():
            batches = iter(loader)
        while True:
            if self._passes != this:
                raise RuntimeError("another pass over the data has begun, or the data were closed")
            batch = next(batches, None)
            if batch is None:
                return
            if isinstance(batch, FaarRayError):
                raise batch
            yield batch

    def close(self) -> None:
        """End the processes; the next pass would start new ones."""
        self._passes += 1
        loader, self._loader = self._loader, None
        iterator: Any = None if loader is None else loader._iterator
        if iterator is not None:
            iterator._shutdown_workers()

    def _open(self) -> DataLoader[Sample | FaarRayError]:
        """torch's loader, made at the first pass."""
        if self._loader is None:
            with count_accepted():
                self._loader = DataLoader(
                    self._batches,
                    batch_size=None,
                    sampler=self._sampler,
                    persistent_workers=self.processes > 0,
                    pin_memory=torch.cuda.is_available(),
                    **process_options(self.processes, PREFETCHED_BATCHES),
                )
        return self._loader


def ready_on(device: torch.device | None, batches: Iterator[Sample]) -> Iterator[Sample]:
    """Batches of compact bytes where they are needed.

    For an accelerator a thread reads the next batch, and copies it there out of pinned memory, during a step.
    """
    if device is None or device.type == "cpu":
        yield from batches
        return
    with ThreadPoolExecutor(1) as reader:
        coming = reader.submit(_copied, device, batches)
        while (batch := coming.result()) is not None:
            coming = reader.submit(_copied, device, batches)
            yield batch


def _copied(device: torch.device, batches: Iterator[Sample]) -> Sample | None:
    """The next batch; a copy from pinned memory waits for nothing."""
    batch = next(batches, None)
    if batch is None:
        return None
    there = {}
    for name, value in batch.items():
        pinned = device.type == "cuda" and not value.is_pinned()
        there[name] = (
            value if name == LABEL_SIZE else (value.pin_memory() if pinned else value).to(device, non_blocking=True)
        )
    return there


def read_in_order(samples: Dataset[T], places: Sequence[Any], processes: int) -> Iterator[T]:
    """What a data set gives at these places, in order, once; processes read ahead.

    Raises:
        FaarRayError: as the data set raised it.
    """
    with count_accepted():
        loader: DataLoader[T | FaarRayError] = DataLoader(
            FaultsAsValues(samples),
            batch_size=None,
            sampler=places,
            collate_fn=_as_it_is,
            **process_options(processes, PREFETCHED_SAMPLES),
        )
        answers = iter(loader)
    for answer in answers:
        if isinstance(answer, FaarRayError):
            raise answer
        yield answer


def _as_it_is(answer: Any) -> Any:
    return answer


def process_options(processes: int, prefetched: int) -> dict[str, Any]:
    """How torch's loader starts and ends its processes; its own generator leaves the global state alone."""
    several = processes > 0
    return {
        "num_workers": processes,
        "prefetch_factor": prefetched if several else None,
        "multiprocessing_context": start_method() if several else None,
        "worker_init_fn": end_with_parent if several else None,
        "generator": torch.Generator(),
    }


@contextmanager
def count_accepted() -> Iterator[None]:
    """Without torch's warning of more processes than CPUs: the number was asked for."""
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", message="This DataLoader will create")
        yield


def start_method() -> str:
    """How processes start; the fork server imports what they need before it forks.

    The main module is imported anew by each process, so its own imports are made before as well.
    """
    if "forkserver" not in multiprocessing.get_all_start_methods():
        return "spawn"
    main = getattr(sys.modules["__main__"], "__spec__", None)
    preloaded = [__name__, "faar_ray.data.samples", *([main.name] if main is not None else [])]
    multiprocessing.get_context("forkserver").set_forkserver_preload(preloaded)
    return "forkserver"


def end_with_parent(_: int) -> None:
    """Make a loader's process end with the one that reads from it, however that ends.

    torch asks whether the parent lives, which is the fork server here. Ctrl-C reaches all processes of a terminal; this
    one is ended by its reader.
    """
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    reader = multiprocessing.parent_process()
    assert reader is not None
    Thread(target=_end_after, args=(reader.sentinel,), daemon=True).start()


def _end_after(sentinel: int) -> None:
    wait([sentinel])
    os._exit(1)


def automatic_processes() -> int:
    """Up to four, one less than there are CPUs: those of the machine beside a GPU, else those that torch may use.

    A trial that computes on CPUs has torch's threads set to its share; more processes would take from other trials.
    """
    cpus = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    if not torch.cuda.is_available():
        cpus = min(cpus, torch.get_num_threads())
    return min(MOST_PROCESSES, cpus - 1)
