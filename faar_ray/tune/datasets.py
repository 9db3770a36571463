"""The search's data, made once before its trials want them all at the same time."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import torch

from faar_ray.config import DataConfig
from faar_ray.data.scene_cache import make_shards, shard_paths
from faar_ray.train.capacity import this_machine
from faar_ray.tune.space import SearchSpace

SPLITS = ("train", "val", "test")


def make_data(space: SearchSpace, say: Callable[[str], None]) -> None:
    """Make the missing shards of the embedded data; data sets in a folder of the user's need nothing.

    Args:
        space: whose base and controls say which data.
        say: is told how far it is.
    """
    wanted = {space.trial_config(over).data for over in ({}, *space.controls)}
    for config in sorted((data for data in wanted if data.name == "scenes"), key=repr):
        missing = [path for split in SPLITS for path in shard_paths(config, split) if not path.exists()]
        if missing:
            _make(config, len(missing), say)


def _make(config: DataConfig, missing: int, say: Callable[[str], None]) -> None:
    made: list[Path] = []

    def on_shard(path: Path) -> None:
        made.append(path)
        if len(made) % 5 == 0:
            say(f"making data: {len(made)} of {missing} shards")

    say(f"making data: {missing} shards of scenes, once")
    threads = torch.get_num_threads()
    torch.set_num_threads(int(this_machine().cpus))
    try:
        for split in SPLITS:
            make_shards(config, split, on_shard=on_shard)
    finally:
        torch.set_num_threads(threads)
