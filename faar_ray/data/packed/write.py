"""Any reader's samples into Parquet shards: several processes, shard by shard, continued where it was cut."""

from __future__ import annotations

import hashlib
import json
import os
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
from filelock import FileLock
from torch.utils.data import Dataset

from faar_ray.config.data_section import DataConfig
from faar_ray.data.datasets import FileReader, Split
from faar_ray.data.loader import read_in_order
from faar_ray.data.loading import ids_of, published_readers
from faar_ray.data.packed.encoding import PNG_TYPES, encode_image, encode_label, shrunken_size
from faar_ray.data.packed.manifest import (
    FORMAT,
    MANIFEST,
    ROW_GROUP_IMAGES,
    Manifest,
    Shard,
    file_digest,
    is_packed,
    read_manifest,
)
from faar_ray.errors import DataError
from faar_ray.storage.atomic import atomic_write
from faar_ray.tasks import Task, tasks_of

SHARD_IMAGES = 64
SOURCE_KEY = b"faar_ray.source"
Row = dict[str, Any]


@dataclass(frozen=True, slots=True)
class PackOptions:
    """How labels and images are stored."""

    longest: int | None = None
    """Images whose longer side is above it are made smaller, in pixels; None: photographs stay as they are."""
    compact: bool = False
    """Normals in 127ths (int8), depth in half precision: about a quarter of the bytes."""


class EncodedSamples(Dataset[Row]):
    """A reader's samples as rows of a shard; what runs in the loader's processes."""

    def __init__(self, reader: FileReader, tasks: dict[str, Task], options: PackOptions) -> None:
        self.reader, self.tasks, self.options = reader, tasks, options

    def __getitem__(self, index: int) -> Row:
        """`id`, `image`, and a label's bytes or None per task."""
        sample = self.reader.sample(index, ("image", *self.tasks))
        image = sample.get("image")
        if image is None:
            raise DataError(f"sample {index} has no image")
        size = shrunken_size(image, self.options.longest)
        row: Row = {
            "id": self.reader.id(index),
            "image": encode_image(image, self.reader.image_bytes(index), size),
        }
        for name, task in self.tasks.items():
            row[name] = encode_label(task, sample.get(name), size, compact=self.options.compact)
        return row


def pack(
    config: DataConfig,
    out: Path,
    options: PackOptions,
    *,
    processes: int | None = None,
    on_images: Callable[[int, int], None] = lambda images, size: None,
) -> Manifest:
    """Write the published splits of a data set; shards that are there already are kept.

    Args:
        config: the data set; `tasks` are those that it has labels for.
        out: a folder.
        options: how it is stored.
        processes: that read; None: one less than there are CPUs.
        on_images: called after each shard with its images and bytes, those kept included.

    Raises:
        DataError: a file of the data set is missing or damaged, or the folder holds other data.
    """
    out.mkdir(parents=True, exist_ok=True)
    with FileLock(out / ".lock"):
        splits = packable_readers(config)
        _refuse_other_data(config, out, options, splits)
        shards = {
            split: list(_pack_split(config, split, reader, out, options, processes, on_images))
            for split, reader in splits.items()
        }
        manifest = Manifest(
            format=FORMAT,
            name=config.name,
            tasks={task: config.definition(task) for task in config.tasks},
            own_definitions=bool(config.definitions),
            options={"longest": options.longest, "compact": options.compact},
            splits={str(split): listed for split, listed in shards.items()},
        )
        with atomic_write(out / MANIFEST) as scratch:
            scratch.write_text(manifest.model_dump_json(indent=1) + "\n")
    return manifest


def packable_readers(config: DataConfig) -> dict[Split, FileReader]:
    """Readers of the published splits.

    Raises:
        DataError: the data set has no image files.
    """
    readers = published_readers(config)
    packable = {split: reader for split, reader in readers.items() if isinstance(reader, FileReader)}
    if len(packable) < len(readers):
        raise DataError(f"data.name: {config.name} has no image files to pack")
    return packable


def _refuse_other_data(config: DataConfig, out: Path, options: PackOptions, splits: Mapping[Split, FileReader]) -> None:
    if not is_packed(out):
        return
    there = read_manifest(out)
    stored = {"longest": options.longest, "compact": options.compact}
    counts = {split: len(reader) for split, reader in splits.items()}
    same_images = counts == {split: there.images(split) for split in there.splits}
    if (there.name, list(there.tasks), there.options) != (config.name, list(config.tasks), stored) or not same_images:
        raise DataError(
            f"--out: {out} holds {there.name} with {', '.join(there.tasks)}, packed with other options or from other "
            "images; give another folder, or remove it"
        )


def _pack_split(
    config: DataConfig,
    split: str,
    reader: FileReader,
    out: Path,
    options: PackOptions,
    processes: int | None,
    on_images: Callable[[int, int], None],
) -> Iterator[Shard]:
    tasks = tasks_of(config)
    names = ids_of(reader)
    parts = [range(start, min(start + SHARD_IMAGES, len(names))) for start in range(0, len(names), SHARD_IMAGES)]
    paths = [out / f"{split}-{number:05d}.parquet" for number in range(len(parts))]
    sources = [_source(config, options, [names[i] for i in part]) for part in parts]
    kept = {path for path, source in zip(paths, sources, strict=True) if _holds(path, source)}

    missing = [index for path, part in zip(paths, parts, strict=True) if path not in kept for index in part]
    count = (os.cpu_count() or 1) - 1 if processes is None else processes
    rows = read_in_order(EncodedSamples(reader, tasks, options), missing, count if missing else 0)
    for path, part, source in zip(paths, parts, sources, strict=True):
        if path not in kept:
            write_shard(path, [next(rows) for _ in part], tasks, options, source)
        shard = Shard(file=path.name, images=len(part), bytes=path.stat().st_size, sha256=file_digest(path))
        on_images(shard.images, shard.bytes)
        yield shard


def _source(config: DataConfig, options: PackOptions, names: Sequence[str]) -> str:
    """Names what a shard was made from, so that one of an earlier, interrupted run can be told from another's."""
    tasks = {task: config.definition(task).model_dump(mode="json") for task in config.tasks}
    facts = [FORMAT, config.name, tasks, options.longest, options.compact, list(names)]
    return hashlib.sha256(json.dumps(facts, sort_keys=True).encode()).hexdigest()


def _holds(path: Path, source: str) -> bool:
    try:
        return (pq.read_schema(path).metadata or {}).get(SOURCE_KEY) == source.encode()
    except (OSError, pa.ArrowException):
        return False


def _described(task: Task, options: PackOptions) -> dict[str, str]:
    """What a column's field says of itself."""
    compact = {"normals": "int8, 127ths", "depth": "float16"} if options.compact else {}
    dtype = "uint8, PNG" if task.type in PNG_TYPES else compact.get(task.type, "float32")
    unit = task.metric_unit if task.type in ("depth", "regression") else ""
    return {"type": task.type, "dtype": dtype, "unit": unit, "classes": json.dumps(task.classes)}


def write_shard(path: Path, rows: Sequence[Row], tasks: dict[str, Task], options: PackOptions, source: str) -> None:
    """One shard of rows as `EncodedSamples` gives them."""
    labels = [pa.field(name, pa.binary(), metadata=_described(task, options)) for name, task in tasks.items()]
    fields = [pa.field("id", pa.string(), nullable=False), pa.field("image", pa.binary(), nullable=False), *labels]
    table = pa.Table.from_pylist(list(rows), schema=pa.schema(fields, metadata={SOURCE_KEY: source}))
    raw = [name for name, task in tasks.items() if task.type not in PNG_TYPES]
    with atomic_write(path) as scratch:
        pq.write_table(
            table,
            scratch,
            row_group_size=ROW_GROUP_IMAGES,
            compression={name: "zstd" if name in ("id", *raw) else "none" for name in table.column_names},
            use_dictionary=False,
            write_page_checksum=True,
        )
