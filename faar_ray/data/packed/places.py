"""Where packed shards of a search lie: below its storage, and in the cache of each machine."""

from __future__ import annotations

import hashlib
import json
from pathlib import Path

from faar_ray.config.data_section import DataConfig
from faar_ray.config.paths import default_cache_dir


def packed_uri(config: DataConfig, shards_uri: str) -> str:
    """The URI of the shards that a search makes of a folder of photographs; the same for any of its tasks."""
    return f"{shards_uri}/{config.name}-{_key(config)}"


def packed_cache(config: DataConfig, tasks: tuple[str, ...]) -> Path:
    """The folder of this machine's cache that a search packs into."""
    return default_cache_dir() / "packed" / f"{config.name}-{_key(config, *sorted(tasks))}"


def _key(config: DataConfig, *more: str) -> str:
    root = None if config.root is None else str(Path(config.root).expanduser().absolute())
    definitions = {name: task.model_dump(mode="json") for name, task in config.definitions.items()}
    facts = json.dumps([config.name, root, definitions, *more], sort_keys=True)
    return hashlib.sha256(facts.encode()).hexdigest()[:16]
