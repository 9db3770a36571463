"""Shards in object storage: uploaded once, downloaded into the cache of every machine that trains.

The layout is that of the cache, e.g. `<uri>/scenes/<key>/<split>-00000.parquet`. Checksums are compared when a shard
is read.
"""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

from faar_ray.config.paths import default_cache_dir
from faar_ray.config.trial import DataConfig
from faar_ray.data.cache_folder import locked_cache_folder
from faar_ray.data.datasets import SPLITS
from faar_ray.data.shards.shard_set import shards_of
from faar_ray.storage.object_store import ATTEMPTS_AT_START, ObjectStore


def missing_shards(config: DataConfig, uri: str, key: str) -> list[str]:
    """Names of the shards of all splits that are missing below the URI.

    Raises:
        StorageError: it cannot be read; the message begins with `key`.
    """
    names = [name for name, _ in _shards(config)]
    stored = ObjectStore(uri, ATTEMPTS_AT_START, key).files(names[0].rpartition("/")[0])
    return [name for name in names if name not in stored]


def upload_shards(config: DataConfig, uri: str, key: str, on_shard: Callable[[int, int], None] | None = None) -> None:
    """Upload the shards of all splits that are missing below the URI.

    Args:
        config: the data set; the cache has its shards.
        uri: object storage.
        key: name of the config key or option that gives the URI, for messages.
        on_shard: called after each shard with its number, from 1, and the number of shards to upload.

    Raises:
        StorageError: it cannot be written.
    """
    missing = set(missing_shards(config, uri, key))
    uploads = [(name, path) for name, path in _shards(config) if name in missing]
    store = ObjectStore(uri, key=key)
    for number, (name, path) in enumerate(uploads, start=1):
        with path.open("rb") as file:
            store.upload(name, file)
        if on_shard:
            on_shard(number, len(uploads))


def download_shards(config: DataConfig, uri: str, key: str, cache_dir: Path | None = None) -> None:
    """Download the shards that the cache lacks and the URI has; a lock keeps other processes waiting.

    Args:
        config: the data set.
        uri: object storage.
        key: name of the config key or option that gives the URI, for messages.
        cache_dir: a folder instead of this machine's cache.

    Raises:
        StorageError: it cannot be read.
        DataError: the cache cannot be written.
    """
    shards = _shards(config, cache_dir)
    if all(path.exists() for _, path in shards):
        return

    store, folder = ObjectStore(uri, key=key), shards[0][1].parent
    with locked_cache_folder(folder):
        stored = store.files(shards[0][0].rpartition("/")[0])
        for name, path in shards:
            if name in stored and not path.exists():
                store.download(name, path, stored[name])


def _shards(config: DataConfig, cache_dir: Path | None = None) -> list[tuple[str, Path]]:
    cache = cache_dir or default_cache_dir()
    paths = [path for split in SPLITS for path in shards_of(config.name).paths(config, split, cache)]
    return [(path.relative_to(cache).as_posix(), path) for path in paths]
