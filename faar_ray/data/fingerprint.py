"""What a data set's files and code are now, so that results of other data are not taken for its own."""

from __future__ import annotations

import hashlib
import os
import sys
from pathlib import Path

from faar_ray.config.data_section import DataConfig
from faar_ray.config.paths import folder_of, is_remote
from faar_ray.config.registries import DATASETS
from faar_ray.data.packed.manifest import MANIFEST, is_packed
from faar_ray.data.packed.transfer import remote_manifest


def fingerprint(config: DataConfig) -> str:
    """A hash of packed shards' manifest, or of the names, sizes and times of the files below `data.root`, and of the
    source of `data.module`; "" for data that depend on the config alone.

    Raises:
        StorageError: a URI that cannot be read.
    """
    digest = hashlib.sha256()
    if config.module is not None:
        _add_source(digest, config.module)
    if config.root is not None and DATASETS[config.name].shards is None:
        _add_files(digest, config.root)
    return "" if digest.digest() == hashlib.sha256().digest() else digest.hexdigest()[:16]


def _add_source(digest: hashlib._Hash, module: str) -> None:
    """The top-level module's file, or all of its package's Python files."""
    top = sys.modules[module.partition(".")[0]]
    places = [Path(str(place)) for place in getattr(top, "__path__", [])]
    files = [path for place in places for path in sorted(place.rglob("*.py"))] or [Path(str(top.__file__))]
    for path in files:
        digest.update(path.name.encode() + path.read_bytes())


def _add_files(digest: hashlib._Hash, root: str) -> None:
    folder = folder_of(root)
    if is_remote(root) or folder is None:
        manifest = remote_manifest(root, "data.root")
        digest.update(b"" if manifest is None else manifest.model_dump_json().encode())
    elif is_packed(folder):
        digest.update((folder / MANIFEST).read_bytes())
    else:
        for place, folders, names in os.walk(folder, followlinks=True):
            folders.sort()
            for name in sorted(names):
                path = Path(place, name)
                status = path.stat() if path.exists() else None
                facts = (path.relative_to(folder).as_posix(), status and (status.st_size, status.st_mtime_ns))
                digest.update(repr(facts).encode())
