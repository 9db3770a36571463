"""Shards in object storage: put there once, taken by every machine that trains, whose cache is a copy.

`<uri>/scenes/<key>/<split>-00000.parquet`, the layout of the cache. What was taken is verified as it is read.
"""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

from filelock import FileLock

from faar_ray.config.paths import default_cache_dir
from faar_ray.config.trial import DataConfig
from faar_ray.data.datasets import SPLITS
from faar_ray.data.shards.scene_cache import shard_paths
from faar_ray.errors import DataError
from faar_ray.storage.object_store import ATTEMPTS_AT_START, ObjectStore


def missing_shards(config: DataConfig, uri: str, key: str) -> list[str]:
    """Shards of all splits that are not below the URI, by name.

    Raises:
        StorageError: it cannot be read; the message begins with `key`.
    """
    names = [name for name, _ in _shards(config)]
    stored = ObjectStore(uri, ATTEMPTS_AT_START, key).files(names[0].rpartition("/")[0])
    return [name for name in names if name not in stored]


def upload_shards(config: DataConfig, uri: str, key: str, on_shard: Callable[[int, int], None] | None = None) -> None:
    """Put the cache's shards of all splits where they are missing.

    Args:
        config: whose shards the cache holds.
        uri: where to.
        key: of the config that names the URI, or the option, for messages.
        on_shard: hears of each one: its number from 1, and how many there are to put.

    Raises:
        StorageError: it cannot be written.
    """
    wanted = set(missing_shards(config, uri, key))
    paths = [(name, path) for name, path in _shards(config) if name in wanted]
    store = ObjectStore(uri, key=key)
    for number, (name, path) in enumerate(paths, start=1):
        with path.open("rb") as file:
            store.upload(name, file)
        if on_shard:
            on_shard(number, len(paths))


def download_shards(config: DataConfig, uri: str, key: str, cache_dir: Path | None = None) -> None:
    """Copy what the cache lacks, as far as it is there; processes at once do it once.

    Args:
        config: says which shards.
        uri: where from.
        key: of the config that names the URI, or the option, for messages.
        cache_dir: instead of the cache.

    Raises:
        StorageError: it cannot be read.
        DataError: the cache cannot be written.
    """
    shards = _shards(config, cache_dir)
    if all(path.exists() for _, path in shards):
        return
    store, folder = ObjectStore(uri, key=key), shards[0][1].parent
    try:
        folder.mkdir(parents=True, exist_ok=True)
        with FileLock(folder / ".lock"):
            stored = store.files(shards[0][0].rpartition("/")[0])
            for name, path in shards:
                if name in stored and not path.exists():
                    store.download(name, path, stored[name])
    except OSError as error:
        raise DataError(f"{folder}: cannot be written ({error}); set FAAR_RAY_CACHE to a folder that can be") from error


def _shards(config: DataConfig, cache_dir: Path | None = None) -> list[tuple[str, Path]]:
    cache = cache_dir or default_cache_dir()
    paths = [path for split in SPLITS for path in shard_paths(config, split, cache)]
    return [(path.relative_to(cache).as_posix(), path) for path in paths]
