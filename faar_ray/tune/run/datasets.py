"""Shards for a search: made once before its trials start, which would otherwise all make them."""

from __future__ import annotations

from collections.abc import Callable
from itertools import count

import torch

from faar_ray.cluster.capacity import this_machine
from faar_ray.config.paths import folder_of, is_remote
from faar_ray.config.registries import DATASETS
from faar_ray.config.trial import DataConfig
from faar_ray.data.datasets import SPLITS
from faar_ray.data.shards.shard_set import shards_of
from faar_ray.data.shards.shard_store import download_shards, upload_shards
from faar_ray.tune.space.space import SearchSpace


def make_data(space: SearchSpace, notify: Callable[[str], None], uri: str = "") -> None:
    """Make the missing shards of a search's data, and upload them where all machines find them.

    Args:
        space: its base and controls name the data. A `data.root` in object storage has the shards (`check_root`).
        notify: called with a line on the progress.
        uri: object storage that the machines download from, "" for none.

    Raises:
        DataError: the cache cannot be written.
        StorageError: the URI cannot be written.
    """
    configs = {space.trial_config(control).data for control in ({}, *space.controls)}
    for config in sorted((config for config in configs if DATASETS[config.name].shards), key=repr):
        if config.root and is_remote(config.root):
            continue

        shared_uri = uri if config.root is None else ""
        if shared_uri:
            download_shards(config, shared_uri, "storage.path")
        _make_missing(config, notify)
        if shared_uri:
            report = _progress(notify, f"putting data in {shared_uri}")
            upload_shards(config, shared_uri, "storage.path", report)


def _progress(notify: Callable[[str], None], label: str) -> Callable[[int, int], None]:
    """Reports every fifth shard and the last one."""

    def report(number: int, total: int) -> None:
        if number % 5 == 0 or number == total:
            notify(f"{label}: {number} of {total} shards")

    return report


def _make_missing(config: DataConfig, notify: Callable[[str], None]) -> None:
    """Make shards with all cores of this machine."""
    shards, cache = shards_of(config.name), folder_of(config.root)
    missing = sum(not path.exists() for split in SPLITS for path in shards.paths(config, split, cache))
    if missing == 0:
        return

    notify(f"making data: {missing} shards of {config.name}, once")
    report, numbers = _progress(notify, "making data"), count(1)
    threads = torch.get_num_threads()
    torch.set_num_threads(int(this_machine().cpus))
    try:
        for split in SPLITS:
            shards.make(config, split, cache, lambda _: report(next(numbers), missing))
    finally:
        torch.set_num_threads(threads)
