"""Decoded images and labels of a split, kept in a file that all trials of a machine map: they share the system's pages.

One uncompressed Arrow IPC file per split, one record batch per sample: `layout` (JSON: dtype and shape by name), then
the bytes of each quantity, null where the sample has none. Reading gives what the reader gives, bit for bit, at the
samples' own sizes; augmentation and resizing come after.
"""

from __future__ import annotations

import hashlib
import json
import logging
import shutil
import sys
from collections.abc import Iterator, Mapping, Sequence
from contextlib import closing
from dataclasses import dataclass
from functools import cache
from importlib.metadata import version
from pathlib import Path
from typing import Any

import psutil
import pyarrow as pa
import torch
from filelock import FileLock
from torch import Tensor
from torch.utils.dlpack import from_dlpack

from faar_ray.config.data_section import DataConfig
from faar_ray.config.paths import default_cache_dir
from faar_ray.data.datasets import FilePaths, FileReader, Reader, Versioned
from faar_ray.data.loader import Draw, Loader, Sample
from faar_ray.storage.atomic import atomic_write, clear_leftovers, reason_of

log = logging.getLogger(__name__)

FORMAT = 1
LAYOUT = "layout"
PROBED = 8
"""Samples from whose sizes that of all is estimated."""
MEMORY_SHARE, DISK_SHARE = 1 / 3, 1 / 2
"""A split is kept if it takes no more of what is available."""
GIB = 2**30


class DecodedReader:
    """A split's samples from a file (`Reader`), which each process that reads opens for itself.

    Tensors lie in the mapped file and must not be written to: the system would end the process.
    """

    def __init__(self, path: Path, images: int) -> None:
        self.path, self._images = path, images
        self._file: Any = None

    def __getstate__(self) -> dict[str, Any]:
        """Open files do not travel to loader processes."""
        return {**self.__dict__, "_file": None}

    def __len__(self) -> int:
        """Number of samples."""
        return self._images

    def sample(self, index: int, names: Sequence[str]) -> Mapping[str, Tensor | None]:
        """The image and labels of a sample, without a copy."""
        if self._file is None:
            self._file = pa.ipc.open_file(pa.memory_map(str(self.path)))
        batch = self._file.get_batch(range(len(self))[index])
        layout = json.loads(batch.column(LAYOUT)[0].as_py())
        return {name: _tensor(batch.column(name), layout[name]) if name in layout else None for name in names}


def _tensor(column: pa.LargeBinaryArray, layout: tuple[str, list[int]]) -> Tensor:
    """A tensor over the bytes of a column with one row, which begin at a multiple of 8. (A cell would be a copy.)"""
    dtype, shape = layout
    content = column.buffers()[-1]
    values: Tensor = from_dlpack(pa.Array.from_buffers(pa.uint8(), content.size, [None, content]))
    return values.view(getattr(torch, dtype)).reshape(shape)


def decoded(reader: Reader, config: DataConfig, split: str, processes: int = 0) -> Reader:
    """The same samples from this machine's cache, where `data.cache` allows it and they fit; else the reader.

    The first process of a machine writes the file, others wait for it.

    Raises:
        DataError: a sample that cannot be read.
    """
    facts = facts_of(reader, config, split) if config.cache == "auto" and len(reader) else None
    if facts is None:
        return reader

    key = hashlib.sha256(json.dumps(facts, sort_keys=True).encode()).hexdigest()[:24]
    path = default_cache_dir() / "decoded" / f"{config.name}-{split}-{key}.arrow"
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        with FileLock(f"{path}.lock"):
            clear_leftovers(path.parent, path.name)
            if path.exists() or _write(reader, config, split, path, processes):
                return DecodedReader(path, len(reader))
    except OSError as fault:
        say_once(f"data.cache: {split} is decoded by each trial, for {path} cannot be written ({reason_of(fault)})")
    return reader


def facts_of(reader: Reader, config: DataConfig, split: str) -> list[Any] | None:
    """All that decoded samples depend on; None for a reader that cannot tell whether its data changed."""
    if isinstance(reader, Versioned):
        source: Any = reader.version()
    elif isinstance(reader, FileReader) and isinstance(reader, FilePaths):
        source = [[reader.id(index), *_files(reader, index, config.tasks)] for index in range(len(reader))]
    else:
        return None

    libraries = [version(name) for name in ("pillow", "torchvision")]
    tasks = {task: config.definition(task).model_dump(mode="json") for task in config.tasks}
    return [FORMAT, *libraries, _code(reader), config.name, config.root, split, tasks, config.disparity, source]


def _code(reader: Reader) -> str:
    """Digest of the reader's own module and of those that read photographs and labels."""
    own = getattr(sys.modules[type(reader).__module__], "__file__", None)
    sources = [*([Path(own)] if own else []), *sorted(Path(__file__).with_name("photographs").glob("*.py"))]
    content = b"".join(path.read_bytes() for path in sources)
    return f"{type(reader).__qualname__} {hashlib.sha256(content).hexdigest()}"


def _files(reader: FilePaths, index: int, tasks: Sequence[str]) -> list[tuple[str, int, int]]:
    """Path, size and time of change of a sample's files that exist."""
    paths = [path for name in ("image", *tasks) for path in reader.files(index, name) if path.exists()]
    return [(str(path), (status := path.stat()).st_size, status.st_mtime_ns) for path in paths]


def _write(reader: Reader, config: DataConfig, split: str, path: Path, processes: int) -> bool:
    """Decode a split into a file, if it fits; `processes` read."""
    names, count = ("image", *config.tasks), len(reader)
    probed = {step * count // PROBED for step in range(PROBED)}
    estimated = count * sum(_size(reader.sample(index, names)) for index in probed) // len(probed)
    most = most_bytes(path.parent)
    if estimated > most:
        say_once(
            f"data.cache: {split} is decoded by each trial: it takes {estimated / GIB:.1f} GiB, more than a third of "
            f"the available memory or half of the free disk ({most / GIB:.1f} GiB)"
        )
        return False

    write_decoded(reader, names, path, processes)
    say_once(f"data.cache: {split} is decoded once for this machine: {path} ({path.stat().st_size / GIB:.2f} GiB)")
    return True


def write_decoded(reader: Reader, names: tuple[str, ...], path: Path, processes: int = 0) -> None:
    """All samples of a reader into a file."""
    schema = pa.schema([(LAYOUT, pa.string()), *((name, pa.large_binary()) for name in names)])
    with atomic_write(path) as scratch, pa.OSFile(str(scratch), "wb") as sink, pa.ipc.new_file(sink, schema) as file:
        for sample in read_ahead(reader, names, processes):
            file.write_batch(_row(sample, schema))


@dataclass(frozen=True)
class RawSamples:
    """A reader's samples as they are; what runs in the loader's processes."""

    reader: Reader
    names: tuple[str, ...]

    def batch(self, draws: Sequence[Draw]) -> Sample:
        """The one sample that is drawn, without the labels that it lacks."""
        (draw,) = draws
        found = self.reader.sample(draw.index, self.names)
        return {name: value for name, value in found.items() if value is not None}


def read_ahead(reader: Reader, names: tuple[str, ...], processes: int) -> Iterator[Sample]:
    """All samples in order."""
    with closing(Loader({"train": RawSamples(reader, names)}, processes)) as loader:
        yield from loader.batches("train", [[Draw(index)] for index in range(len(reader))])


def _row(sample: Sample, schema: pa.Schema) -> pa.RecordBatch:
    layout = {name: (str(value.dtype).removeprefix("torch."), list(value.shape)) for name, value in sample.items()}
    cells: dict[str, Any] = {name: value.contiguous().numpy().tobytes() for name, value in sample.items()}
    cells[LAYOUT] = json.dumps(layout)
    return pa.record_batch([pa.array([cells.get(field.name)], field.type) for field in schema], schema=schema)


def _size(sample: Mapping[str, Tensor | None]) -> int:
    return sum(value.nbytes for value in sample.values() if value is not None)


def most_bytes(folder: Path) -> int:
    """What a split may take of this machine's memory and of a folder's disk."""
    return int(min(MEMORY_SHARE * psutil.virtual_memory().available, DISK_SHARE * shutil.disk_usage(folder).free))


@cache
def say_once(text: str) -> None:
    """Once in each process, which trains one trial after another."""
    log.info(text)
