"""`bench data`: how fast samples are read, in images per second, and how fast a training step takes them."""

from __future__ import annotations

import argparse
import json
import statistics
import tempfile
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import closing
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from rich.table import Table
from torch import Tensor

from faar_ray.bench.output import print_result
from faar_ray.bench.step.launches import wait_for
from faar_ray.config.data_section import DataConfig
from faar_ray.config.overrides import apply_overrides
from faar_ray.config.registries import DATASETS
from faar_ray.config.trial import TrialConfig
from faar_ray.config.trial_file import read_trial, trial_of
from faar_ray.config.yaml_document import document_of
from faar_ray.data import check_root, local_data, open_split
from faar_ray.data.checks.survey import one_thread
from faar_ray.data.datasets import ColumnReader, FileReader, Reader
from faar_ray.data.decoded import DecodedReader, write_decoded
from faar_ray.data.loader import MOST_PROCESSES
from faar_ray.data.packed.manifest import FORMAT, MANIFEST, Manifest, Shard, file_digest
from faar_ray.data.packed.reader import PackedReader
from faar_ray.data.packed.write import EncodedSamples, PackOptions, write_shard
from faar_ray.data.samples import loader_processes, sample_datasets
from faar_ray.errors import ConfigError
from faar_ray.tasks import tasks_of
from faar_ray.train.runtimes.runtime import InProcess
from faar_ray.train.step import train_step
from faar_ray.train.trial import Trial

BATCH = 8
LONGEST_S = 3.0  # of each row, about


@dataclass(frozen=True)
class Row:
    """One measurement."""

    source: str
    augmented: bool
    processes: int
    images_per_s: float


class FirstImages:
    """The first samples of a photographs' reader."""

    def __init__(self, reader: FileReader, images: int) -> None:
        self.reader, self.images = reader, images
        self.id, self.image_bytes = reader.id, reader.image_bytes

    def __len__(self) -> int:
        """Number of samples."""
        return self.images

    def sample(self, index: int, names: Sequence[str]) -> Mapping[str, Tensor | None]:
        """As the reader's."""
        whole: Any = self.reader
        found: Mapping[str, Tensor | None] = whole.sample(index, names)
        return found


def run(args: argparse.Namespace) -> None:
    """Measure, and say which of the two is the slower one here.

    Raises:
        ConfigError: data that are not read sample by sample, or faults of the config.
    """
    config = config_of(args)
    check_root(config.data)
    data = local_data(config.data)
    reader = open_split(data, "train")
    if isinstance(reader, ColumnReader) or not isinstance(reader, FileReader):
        raise ConfigError(f"data.name: {config.data.name} is in memory while it trains; there is no loading to measure")

    with tempfile.TemporaryDirectory(prefix="faar-ray-bench-") as scratch:
        first = FirstImages(reader, min(args.images, len(reader)))
        rows = list(measured(sources(first, data, Path(scratch)), data, args.processes))
    device, taken = training_rate(config, data, args.steps)
    per_core = {row.source: row.images_per_s for row in rows if row.augmented and row.processes == 0}
    verdict = sentences(per_core, taken, device, loader_processes(data, reader), config.optim.batch_size)
    result = {"device": device, "trained_images_per_s": taken, "rows": [asdict(row) for row in rows], "says": verdict}
    print_result(args, result, _table(rows, config), *verdict)


def config_of(args: argparse.Namespace) -> TrialConfig:
    """The trial of a file, or the default one on a data set with all its tasks."""
    root = [f"data.root={args.root}"] if args.root else []
    if args.what_data not in DATASETS:
        return read_trial(Path(args.what_data), [*args.overrides, *root]).config
    entry = DATASETS[args.what_data]
    data: dict[str, Any] = {"name": args.what_data, "image_size": 448 if entry.needs_root else 64}
    if entry.channels:
        data["tasks"] = list(entry.channels)
    document = document_of(json.dumps({"data": data}), args.what_data)
    return trial_of(apply_overrides(document, [*args.overrides, *root])).config


def sources(first: FirstImages, config: DataConfig, scratch: Path) -> dict[str, Reader]:
    """The same samples as they lie, packed, and decoded."""
    if isinstance(first.reader, PackedReader):
        found: dict[str, Reader] = {"shards": first}
    else:
        found = {"files": first, "shards": packed(first, config, scratch / "packed")}
    write_decoded(first, ("image", *config.tasks), scratch / "decoded.arrow")
    return {**found, "decoded cache": DecodedReader(scratch / "decoded.arrow", len(first))}


def packed(first: FirstImages, config: DataConfig, folder: Path) -> PackedReader:
    """One shard of the samples."""
    tasks, options, path = tasks_of(config), PackOptions(), folder / "train-00000.parquet"
    encoded = EncodedSamples(first, tasks, options)
    write_shard(path, [encoded[index] for index in range(len(first))], tasks, options, "")
    shard = Shard(file=path.name, images=len(first), bytes=path.stat().st_size, sha256=file_digest(path))
    manifest = Manifest(
        format=FORMAT,
        name=config.name,
        tasks={task: config.definition(task) for task in config.tasks},
        own_definitions=bool(config.definitions),
        options={},
        splits={"train": [shard], "val": [shard]},
    )
    (folder / MANIFEST).write_text(manifest.model_dump_json())
    return PackedReader(config.model_copy(update={"protocol": "papers"}), "train", folder)


def measured(readers: Mapping[str, Reader], config: DataConfig, processes: int) -> Iterator[Row]:
    """A row for each source, with and without augmentation, in this process and in several."""
    for source, reader in readers.items():
        for count in (0, processes):
            data = sample_datasets({"train": reader}, config, count)["train"]
            with closing(data), one_thread():
                for train in (False, True):
                    yield Row(source, train, count, _rate(data.batches, len(data), train))


def _rate(batches: Any, images: int, train: bool) -> float:
    """Images per second, decoded and collated, in the order of training; a first pass sets everything up."""
    seen, started = 0, 0.0
    for number in range(1_000_000):
        if number == 1:
            seen, started = 0, time.perf_counter()
        for batch in batches(batch_size=BATCH, seed=0, epoch=number, train=train):
            seen += len(batch["image"])
            if number and time.perf_counter() - started > LONGEST_S:
                return seen / (time.perf_counter() - started)
    raise AssertionError("time stands still")


def training_rate(config: TrialConfig, data: DataConfig, steps: int) -> tuple[str, float]:
    """Device, and images per second of training steps on a batch that is there already."""
    uncached = data.model_copy(update={"cache": "never", "loader_workers": 0})
    with closing(Trial(config, InProcess(), uncached)) as trial:
        order = trial.train_data.batches(batch_size=config.optim.batch_size, seed=0, epoch=0, train=True)
        batch, seconds = next(iter(order)), []
        for step in range(steps + 1):
            started = time.perf_counter()
            trial.policy.sample_mask(0, step)
            train_step(trial, batch, step)
            wait_for(trial.runtime.device)
            seconds.append(time.perf_counter() - started)
        return str(trial.runtime.device), len(batch["image"]) / statistics.median(seconds[1:])


def sentences(per_core: Mapping[str, float], taken: float, device: str, processes: int, batch: int) -> list[str]:
    """Which is the slower one here, and what that means for a machine with a GPU."""
    source, rate = list(per_core.items())[-1]  # what training reads where it fits
    if processes:
        slower = "training" if processes * rate > taken else "loading"
        here = f"{slower} is the slower one here: {processes * rate:.0f} images/s are read by {processes} processes"
    else:
        slower = "training" if rate > taken else "loading"
        here = f"{slower} takes longer here, where one process does both: {rate:.0f} images/s are read"
    several = MOST_PROCESSES * rate
    return [
        f"{here} ({source}, augmented), a training step on {device} takes {taken:.1f} images/s.",
        f"Beside a GPU, {MOST_PROCESSES} loader processes on such cores read {several:.0f} images/s: loading is the "
        f"slower one for steps of {batch} images below {1000 * batch / several:.0f} ms.",
    ]


def _table(rows: Sequence[Row], config: TrialConfig) -> Table:
    height, width = config.data.size
    table = Table("source", "augmented", "processes", "images/s", title=f"{config.data.name} at {height}x{width}")
    for row in rows:
        table.add_row(row.source, "yes" if row.augmented else "no", str(row.processes), f"{row.images_per_s:.1f}")
    return table
