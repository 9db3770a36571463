"""Checks of shards: rows, sizes and values. Checksums are compared by `read_shard`."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from torch import Tensor

from faar_ray.config.trial import DataConfig
from faar_ray.data.shards.shard_set import ShardSet, shards_of
from faar_ray.data.shards.shards import read_shard, shard_digest
from faar_ray.errors import DataError


@dataclass(frozen=True)
class ShardReport:
    """One shard: rows read, its digest, and what is wrong ("" = nothing)."""

    path: Path
    rows: int
    digest: str
    fault: str


def verify_split(config: DataConfig, split: str, cache_dir: Path | None = None) -> list[ShardReport]:
    """A report for each shard of a split."""
    shards = shards_of(config.name)
    return [_verify(path, shards, config.size[0]) for path in shards.paths(config, split, cache_dir)]


def _verify(path: Path, shards: ShardSet, size: int) -> ShardReport:
    try:
        columns = read_shard(path, shards.columns)
    except DataError as error:
        return ShardReport(path, 0, "", str(error).removeprefix(f"{path}: "))
    problems = [*_shape_problems(columns, shards.rows, size), *shards.value_problems(columns)]
    return ShardReport(path, len(columns["image"]), shard_digest(path), "; ".join(problems))


def _shape_problems(columns: Mapping[str, Tensor], rows: int, size: int) -> list[str]:
    return [
        f"{name}: must be {rows} rows of {size}x{size}, got {len(values)} of {tuple(values.shape[-2:])}"
        for name, values in columns.items()
        if len(values) != rows or values.shape[-2:] != (size, size)
    ]
