"""Packed shards in object storage: uploaded once; every machine that trains downloads them into its cache."""

from __future__ import annotations

import hashlib
from collections.abc import Callable
from pathlib import Path

from faar_ray.config.paths import default_cache_dir
from faar_ray.data.cache_folder import locked_cache_folder
from faar_ray.data.packed.manifest import MANIFEST, Manifest, file_digest, is_packed, parse_manifest, read_manifest
from faar_ray.errors import DataError, StorageError
from faar_ray.storage.atomic import atomic_write
from faar_ray.storage.object_store import ATTEMPTS_AT_START, ObjectStore


def remote_manifest(uri: str, key: str) -> Manifest | None:
    """What a URI holds; None where there are no packed shards.

    Raises:
        StorageError: it cannot be read; the message begins with `key`.
        DataError: the manifest is damaged.
    """
    content = ObjectStore(uri, ATTEMPTS_AT_START, key).read(MANIFEST)
    return None if content is None else parse_manifest(content, f"{uri}/{MANIFEST}")


def upload_packed(folder: Path, uri: str, key: str, on_shard: Callable[[int, int], None] | None = None) -> None:
    """Upload what the URI lacks, the manifest last.

    Raises:
        StorageError: it cannot be written.
    """
    manifest, store = read_manifest(folder), ObjectStore(uri, key=key)
    before = remote_manifest(uri, key)
    if before == manifest:
        return
    stored, same = store.files(), set() if before is None else {(s.file, s.sha256) for s in before.shards}
    missing = [s for s in manifest.shards if s.file not in stored or (s.file, s.sha256) not in same]
    for number, shard in enumerate(missing, start=1):
        with (folder / shard.file).open("rb") as file:
            store.upload(shard.file, file)
        if on_shard:
            on_shard(number, len(missing))
    store.write(MANIFEST, (folder / MANIFEST).read_bytes())


def download_packed(uri: str, key: str, cache_dir: Path | None = None) -> Path:
    """The folder of this machine's cache with the shards of a URI; a lock keeps other processes waiting.

    Raises:
        StorageError: it cannot be read.
        DataError: there are no packed shards, a download differs from what was packed, or the cache cannot be written.
    """
    store = ObjectStore(uri, key=key)
    content = store.read(MANIFEST)
    if content is None:
        raise DataError(f"{key}: {uri} holds no packed shards (no {MANIFEST})")
    manifest = parse_manifest(content, f"{uri}/{MANIFEST}")
    folder = (cache_dir or default_cache_dir()) / "packed" / hashlib.sha256(content).hexdigest()[:16]
    if is_packed(folder):
        return folder

    with locked_cache_folder(folder):
        _download_missing(store, manifest, folder, uri)
        with atomic_write(folder / MANIFEST) as scratch:
            scratch.write_bytes(content)
    return folder


def _download_missing(store: ObjectStore, manifest: Manifest, folder: Path, uri: str) -> None:
    stored = store.files()
    for shard in manifest.shards:
        path = folder / shard.file
        if path.exists() and file_digest(path) == shard.sha256:
            continue
        if shard.file not in stored:
            raise StorageError(f"{store.key}: {uri}/{shard.file} is missing; upload the shards again with `pack`")
        store.download(shard.file, path, stored[shard.file])
        if file_digest(path) != shard.sha256:
            path.unlink()
            raise DataError(f"{uri}/{shard.file}: sha256 differs from the packed shard's; upload the shards again")
