"""One split of packed shards, read a row group at a time; files are mapped, so trials share the page cache."""

from __future__ import annotations

import hashlib
from bisect import bisect_right
from collections.abc import Callable, Mapping, Sequence
from itertools import accumulate
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
from torch import Tensor

from faar_ray.config.data_section import DataConfig
from faar_ray.data.packed.encoding import decode_label
from faar_ray.data.packed.manifest import ROW_GROUP_IMAGES, Manifest, read_manifest
from faar_ray.data.photographs.pixels import decode_pixels
from faar_ray.data.photographs.splits import split_rows
from faar_ray.errors import ConfigError, DataError
from faar_ray.tasks import tasks_of


class PackedReader:
    """A split of a folder of packed shards (`Reader`, `FileReader`, `FilePaths`, `Versioned`).

    Args:
        config: data set, tasks and protocol.
        split: train, val or test.
        folder: of the shards.

    Raises:
        ConfigError: the folder holds another data set, or lacks a task.
        DataError: the manifest is damaged.
    """

    def __init__(self, config: DataConfig, split: str, folder: Path) -> None:
        self.folder, self.manifest = folder, read_manifest(folder)
        check_contents(config, self.manifest, folder)
        self.tasks = tasks_of(config)
        images = {name: self.manifest.images(name) for name in self.manifest.splits}
        published, self._rows = split_rows(config, split, images)
        self._shards = self.manifest.splits[published]
        self._ends = list(accumulate(shard.images for shard in self._shards))
        self._files: dict[int, pq.ParquetFile] = {}
        self._ids: dict[int, list[str]] = {}
        self._group: tuple[int, int, pa.Table] | None = None

    def __getstate__(self) -> dict[str, Any]:
        """Open files do not travel to loader processes."""
        return {**self.__dict__, "_files": {}, "_group": None}

    def __len__(self) -> int:
        """Number of images."""
        return len(self._rows)

    def id(self, index: int) -> str:
        """Name of a sample."""
        number, offset = self._place(index)
        if number not in self._ids:
            table = self._read(number, lambda shard: shard.read(columns=["id"]))
            self._ids[number] = table.column("id").to_pylist()
        return self._ids[number][offset]

    def image_bytes(self, index: int) -> bytes:
        """The image's file."""
        content: bytes = self._row(index, ("image",))["image"]
        return content

    def sample(self, index: int, names: Sequence[str]) -> Mapping[str, Tensor | None]:
        """The image and labels of a sample."""
        row = self._row(index, names)
        sample: dict[str, Tensor | None] = {}
        for name in names:
            content = row[name]
            if name == "image":
                sample[name] = decode_pixels(content, f"{self.folder}: image {index}")
            else:
                sample[name] = None if content is None else self._label(name, content, index)
        return sample

    def _label(self, name: str, content: bytes, index: int) -> Tensor:
        try:
            return decode_label(self.tasks[name], content)
        except (OSError, ValueError) as error:
            raise DataError(f"{self.folder}: {name} of image {index} is damaged ({error})") from error

    def version(self) -> str:
        """Digest of the shards and of the rows that are read."""
        facts = [*(shard.sha256 for shard in self._shards), self._rows]
        return hashlib.sha256(repr(facts).encode()).hexdigest()

    def files(self, index: int, name: str) -> list[Path]:
        """The shard that holds a sample."""
        return [self.folder / self._shards[self._place(index)[0]].file]

    def _place(self, index: int) -> tuple[int, int]:
        """Number of the shard that holds a sample, and the row there."""
        row = self._rows[index]
        number = bisect_right(self._ends, row)
        return number, row - (self._ends[number - 1] if number else 0)

    def _row(self, index: int, names: Sequence[str]) -> dict[str, Any]:
        number, offset = self._place(index)
        group, place = divmod(offset, ROW_GROUP_IMAGES)
        table = self._read_group(number, group)
        return {name: table.column(name)[place].as_py() for name in names}

    def _read_group(self, number: int, group: int) -> pa.Table:
        if self._group is not None and self._group[:2] == (number, group):
            return self._group[2]
        table = self._read(number, lambda shard: shard.read_row_group(group, columns=["image", *self.tasks]))
        self._group = (number, group, table)
        return table

    def _read(self, number: int, read: Callable[[pq.ParquetFile], pa.Table]) -> pa.Table:
        """Part of a shard, which stays open."""
        path = self.folder / self._shards[number].file
        try:
            if number not in self._files:
                self._files[number] = pq.ParquetFile(path, memory_map=True, page_checksum_verification=True)
            return read(self._files[number])
        except FileNotFoundError as error:
            raise DataError(f"{path}: no such shard; pack or download the data again") from error
        except (pa.ArrowException, OSError, KeyError) as error:
            reason = str(error).splitlines()[0] if str(error) else type(error).__name__
            mend = "delete it and pack or download the data again"
            raise DataError(f"{path}: damaged shard ({reason}); {mend}") from error


def check_contents(config: DataConfig, manifest: Manifest, folder: Path | str) -> None:
    """Check that packed shards are those of a data set and its tasks.

    Raises:
        ConfigError: naming the key.
    """
    if manifest.name != config.name:
        raise ConfigError(f"data.name: must be {manifest.name}, whose shards {folder} holds, got {config.name!r}")
    if missing := [task for task in config.tasks if task not in manifest.tasks]:
        packed = ", ".join(manifest.tasks)
        raise ConfigError(f"data.tasks: {folder} was packed with {packed}, got {', '.join(missing)}")
