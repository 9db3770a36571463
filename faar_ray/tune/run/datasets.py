"""The search's data, made once before its trials want them all at the same time."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import torch

from faar_ray.cluster.capacity import this_machine
from faar_ray.config.paths import folder_of, is_remote
from faar_ray.config.registries import DATASETS
from faar_ray.config.trial import DataConfig
from faar_ray.data.datasets import SPLITS
from faar_ray.data.shards.scene_cache import make_shards, shard_paths
from faar_ray.data.shards.shard_store import download_shards, upload_shards
from faar_ray.tune.space.space import SearchSpace


def make_data(space: SearchSpace, say: Callable[[str], None], uri: str = "") -> None:
    """Make the missing shards of the embedded data, and put them where all machines find them.

    Args:
        space: whose base and controls say which data; a `data.root` in object storage has them (`check_root`).
        say: is told how far it is.
        uri: below which the machines look, "" for none.

    Raises:
        DataError: the cache cannot be written.
        StorageError: the URI cannot be written.
    """
    wanted = {space.trial_config(over).data for over in ({}, *space.controls)}
    for config in sorted((data for data in wanted if DATASETS[data.name].sharded), key=repr):
        if config.root and is_remote(config.root):
            continue
        if uri and not config.root:
            download_shards(config, uri, "storage.path")
        cache = folder_of(config.root)
        missing = [path for split in SPLITS for path in shard_paths(config, split, cache) if not path.exists()]
        if missing:
            _make(config, cache, len(missing), say)
        if uri and not config.root:
            upload_shards(config, uri, "storage.path", lambda done, of: _tell(say, f"putting data in {uri}", done, of))


def _tell(say: Callable[[str], None], what: str, done: int, of: int) -> None:
    if done % 5 == 0 or done == of:
        say(f"{what}: {done} of {of} shards")


def _make(config: DataConfig, cache: Path | None, missing: int, say: Callable[[str], None]) -> None:
    made: list[Path] = []

    def on_shard(path: Path) -> None:
        made.append(path)
        _tell(say, "making data", len(made), missing)

    say(f"making data: {missing} shards of scenes, once")
    threads = torch.get_num_threads()
    torch.set_num_threads(int(this_machine().cpus))
    try:
        for split in SPLITS:
            make_shards(config, split, cache, on_shard)
    finally:
        torch.set_num_threads(threads)
