"""Shards for a search: made once before its trials start, which would otherwise all make them."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from itertools import count
from pathlib import Path

import torch

from faar_ray.cluster.capacity import this_machine
from faar_ray.config.paths import folder_of, is_remote
from faar_ray.config.registries import DATASETS
from faar_ray.config.trial import DataConfig
from faar_ray.data.datasets import SPLITS
from faar_ray.data.packed.manifest import is_packed
from faar_ray.data.packed.places import packed_cache, packed_uri
from faar_ray.data.packed.transfer import upload_packed
from faar_ray.data.packed.write import SHARD_IMAGES, PackOptions, pack, packable_readers
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
    configs = {repr(config): config for config in (space.trial_config(c).data for c in ({}, *space.controls))}
    unique = [configs[key] for key in sorted(configs)]
    for config in (config for config in unique if DATASETS[config.name].shards):
        if config.root and is_remote(config.root):
            continue

        shared_uri = uri if config.root is None else ""
        if shared_uri:
            download_shards(config, shared_uri, "storage.path")
        _make_missing(config, notify)
        if shared_uri:
            report = _progress(notify, f"putting data in {shared_uri}")
            upload_shards(config, shared_uri, "storage.path", report)

    if uri:
        _share_photographs([config for config in unique if not DATASETS[config.name].shards], uri, notify)


def _share_photographs(configs: Sequence[DataConfig], uri: str, notify: Callable[[str], None]) -> None:
    """Pack folders of photographs that only this machine has, with the tasks of all trials, and upload the shards."""
    by_target: dict[str, list[DataConfig]] = {}
    for config in configs:
        if folder_of(config.root) is not None:
            by_target.setdefault(packed_uri(config, uri), []).append(config)

    for target, same in by_target.items():
        tasks = tuple(dict.fromkeys(task for config in same for task in config.tasks))
        folder = _packed_folder(same[0].model_copy(update={"tasks": tasks}), notify)
        upload_packed(folder, target, "storage.path", _progress(notify, f"putting data in {target}"))


def _packed_folder(config: DataConfig, notify: Callable[[str], None]) -> Path:
    """The data set's folder, if it holds packed shards; else one in the cache, with what is missing made."""
    folder = folder_of(config.root)
    if folder is not None and is_packed(folder):
        return folder

    folder, done = packed_cache(config, config.tasks), count(1)
    shards = sum(-(-len(reader) // SHARD_IMAGES) for reader in packable_readers(config).values())
    report = _progress(notify, f"packing {config.name}, once")
    pack(config, folder, PackOptions(), on_images=lambda images, size: report(next(done), shards))
    return folder


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
