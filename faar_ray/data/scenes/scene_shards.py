"""Shards of `scenes`: rendered on first use, shared by every run with the same generator.

`<cache>/scenes/<key>/<split>-00000.parquet`, SHARD_IMAGES rows each. The key is a hash of what the
generator depends on (version, domain, size, seed). It does not depend on the number of images: the first images of a
larger split are those of a smaller one.
"""

from __future__ import annotations

import hashlib
import json
import logging
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import asdict
from pathlib import Path

import torch
from filelock import FileLock
from torch import Tensor

from faar_ray.config.paths import default_cache_dir
from faar_ray.config.trial import DataConfig
from faar_ray.data.cache_folder import locked_cache_folder
from faar_ray.data.datasets import SPLITS
from faar_ray.data.scenes.domains import DOMAINS
from faar_ray.data.scenes.scene_checks import value_problems
from faar_ray.data.scenes.scenes import GENERATOR_VERSION, Rendered, concatenate, render
from faar_ray.data.shards.shard_set import ShardSet
from faar_ray.data.shards.shards import read_shard, write_shard
from faar_ray.errors import DataError
from faar_ray.seeding import private
from faar_ray.tasks import IGNORE

CHUNK_IMAGES = 6  # rendered together: what fits a core's cache at 64x64
SHARD_IMAGES = 60
COLUMNS = ("image", "semseg", "human_parts", "saliency", "normals", "depth", "edge")

log = logging.getLogger(__name__)


def scene_shards() -> ShardSet:
    """How the shards of `scenes` are named, made and checked."""
    return ShardSet(shard_paths, make_shards, SHARD_IMAGES, COLUMNS, value_problems, pack_options)


def split_images(config: DataConfig, split: str) -> int:
    """Number of images of a split."""
    return {"train": config.train_images, "val": config.val_images, "test": config.test_images}[split]


def pack_options(config: DataConfig) -> str:
    """Options of `python -m faar_ray.data pack` that make at least the shards of a config."""
    images = max(split_images(config, split) for split in SPLITS)
    return f"--domain {config.domain} --size {config.size[0]} --seed {config.seed} --images {images}"


def generator_parameters(config: DataConfig) -> dict[str, str]:
    """Everything that the bytes of the scenes depend on, as text."""
    domain = json.dumps(asdict(DOMAINS[config.domain]), sort_keys=True)
    return {
        "generator_version": str(GENERATOR_VERSION),
        "domain": config.domain,
        "domain_parameters": domain,
        "image_size": str(config.size[0]),
        "seed": str(config.seed),
    }


def shard_paths(config: DataConfig, split: str, cache_dir: Path | None = None) -> list[Path]:
    """Paths of a split's shards in a cache (default: this machine's), whether or not they exist."""
    key = hashlib.sha256(json.dumps(generator_parameters(config), sort_keys=True).encode()).hexdigest()[:16]
    folder = (cache_dir or default_cache_dir()) / "scenes" / key
    count = -(-split_images(config, split) // SHARD_IMAGES)
    return [folder / f"{split}-{number:05d}.parquet" for number in range(count)]


def make_shards(
    config: DataConfig, split: str, cache_dir: Path | None = None, on_shard: Callable[[Path], None] | None = None
) -> list[Path]:
    """Render the missing shards of a split, calling `on_shard` after each; a lock keeps other processes waiting.

    Raises:
        DataError: the cache cannot be written.
    """
    paths = shard_paths(config, split, cache_dir)
    if all(path.exists() for path in paths):
        return paths
    with locked_cache_folder(paths[0].parent):
        _make_missing(config, split, paths, on_shard)
    return paths


def _make_missing(config: DataConfig, split: str, paths: list[Path], on_shard: Callable[[Path], None] | None) -> None:
    missing = [(number, path) for number, path in enumerate(paths) if not path.exists()]
    log.info("rendering %d %s images of scenes in %s", len(missing) * SHARD_IMAGES, split, paths[0].parent)

    for number, path in missing:
        write_shard(path, compact(render_shard(config, split, number)), generator_parameters(config))
        if on_shard:
            on_shard(path)


def read_scenes(
    config: DataConfig, split: str, names: Sequence[str], cache_dir: Path | None = None
) -> list[dict[str, Tensor]]:
    """The named columns of each shard of a split; missing and damaged shards are rendered.

    Raises:
        DataError: the cache cannot be written.
    """
    paths = make_shards(config, split, cache_dir)
    return [_read_or_remake(config, split, number, path, names) for number, path in enumerate(paths)]


def _read_or_remake(config: DataConfig, split: str, number: int, path: Path, names: Sequence[str]) -> dict[str, Tensor]:
    try:
        return read_shard(path, names)
    except DataError:
        with FileLock(path.parent / ".lock"):
            try:  # another process may have repaired it meanwhile
                return read_shard(path, names)
            except DataError as error:
                log.warning("%s: this is done now", error)
                write_shard(path, compact(render_shard(config, split, number)), generator_parameters(config))
    return read_shard(path, names)


def render_shard(config: DataConfig, split: str, number: int) -> Rendered:
    """SHARD_IMAGES scenes, a chunk per thread; each chunk has its own seed, so the bytes do not depend on threads."""
    domain, first = DOMAINS[config.domain], number * SHARD_IMAGES // CHUNK_IMAGES

    def chunk(index: int) -> Rendered:
        stream = private("scenes", config.seed, config.domain, split, index)
        return render(CHUNK_IMAGES, domain, config.size[0], stream)

    threads = torch.get_num_threads()
    try:
        with ThreadPoolExecutor(threads, initializer=torch.set_num_threads, initargs=(1,)) as pool:
            return concatenate(list(pool.map(chunk, range(first, first + SHARD_IMAGES // CHUNK_IMAGES))))
    finally:
        torch.set_num_threads(threads)


def compact(scenes: Rendered) -> dict[str, Tensor]:
    """Columns of a shard; an image without a person is ignored (255) by human_parts (METHODS.md, section 6)."""
    has_person = (scenes.human_parts > 0).flatten(1).any(1)[:, None, None]
    return {
        "image": scenes.image,
        "semseg": scenes.semseg,
        "human_parts": torch.where(has_person, scenes.human_parts, IGNORE).to(torch.uint8),
        "saliency": scenes.saliency[:, None].to(torch.uint8),
        "normals": (scenes.normals * 127).round().to(torch.int8),
        "depth": scenes.depth[:, None].half(),
        "edge": scenes.edge[:, None].to(torch.uint8),
    }
