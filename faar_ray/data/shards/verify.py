"""Is a shard what it says? Rows, shapes and ranges; the hashes are checked by reading."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import torch
from torch import Tensor

from faar_ray.config.trial import DataConfig
from faar_ray.data.scenes.object_table import CLASSES, PARTS
from faar_ray.data.shards.scene_cache import SHARD_IMAGES, shard_paths
from faar_ray.data.shards.shards import read_shard, shard_digest
from faar_ray.errors import DataError
from faar_ray.tasks import IGNORE

COLUMNS = ("image", "semseg", "human_parts", "saliency", "normals", "depth", "edge")
HIGHEST = {"semseg": len(CLASSES) - 1, "human_parts": len(PARTS) - 1, "saliency": 1, "edge": 1}
FARTHEST = 20.0  # metres; no room is larger


@dataclass(frozen=True)
class ShardReport:
    """One shard: rows read, its digest, and what is wrong ("" = nothing)."""

    path: Path
    rows: int
    digest: str
    fault: str


def verify_split(config: DataConfig, split: str, cache_dir: Path | None = None) -> list[ShardReport]:
    """A report for each shard that the config needs."""
    return [_verify(path, config.image_size) for path in shard_paths(config, split, cache_dir)]


def _verify(path: Path, size: int) -> ShardReport:
    try:
        columns = read_shard(path, COLUMNS)
    except DataError as error:
        return ShardReport(path, 0, "", str(error).removeprefix(f"{path}: "))
    return ShardReport(path, len(columns["image"]), shard_digest(path), "; ".join(faults(columns, size)))


def faults(columns: dict[str, Tensor], size: int) -> list[str]:
    """Rules that the columns of a shard break, each with the value that came."""
    broken = [
        f"{name}: must be {SHARD_IMAGES} rows of {size}x{size}, got {len(values)} of {tuple(values.shape[-2:])}"
        for name, values in columns.items()
        if len(values) != SHARD_IMAGES or values.shape[-2:] != (size, size)
    ]
    for name, highest in HIGHEST.items():
        known = columns[name][columns[name] != IGNORE]
        if known.numel() and known.max() > highest:
            broken.append(f"{name}: must be 0..{highest} or {IGNORE}, got {int(known.max())}")
    lengths = columns["normals"].float().square().sum(1).sqrt() / 127
    if not bool(((lengths - 1).abs() < 0.02).all()):
        broken.append(f"normals: must have length 1, got {lengths.min():.2f}..{lengths.max():.2f}")
    depth = columns["depth"].float()
    if not bool((torch.isfinite(depth) & (depth > 0) & (depth < FARTHEST)).all()):
        broken.append(f"depth: must be 0..{FARTHEST:g} m, got {depth.min():.2f}..{depth.max():.2f}")
    return broken
