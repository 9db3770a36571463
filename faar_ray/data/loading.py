"""From a config to a split that can be read."""

from __future__ import annotations

from collections.abc import Sequence

from faar_ray.config.paths import folder_of, is_remote
from faar_ray.config.registries import DATASETS, load_builder
from faar_ray.config.trial import DataConfig
from faar_ray.data.checks.missing import missing_files
from faar_ray.data.datasets import SPLITS, ColumnReader, FileReader, Reader, Split, SplitData
from faar_ray.data.decoded import decoded
from faar_ray.data.dense import DenseDataset
from faar_ray.data.packed.manifest import is_packed
from faar_ray.data.packed.places import packed_uri
from faar_ray.data.packed.reader import PackedReader, check_contents
from faar_ray.data.packed.transfer import download_packed, remote_manifest
from faar_ray.data.photographs.splits import split_rows
from faar_ray.data.samples import loader_processes, sample_datasets
from faar_ray.data.shards.shard_set import shards_of
from faar_ray.data.shards.shard_store import download_shards, missing_shards
from faar_ray.errors import ConfigError, StorageError
from faar_ray.tasks import tasks_of

ROOT = "data.root"


def check_root(config: DataConfig) -> None:
    """Check that `data.root` is given where it is needed, that a URI has all shards, and that no file is missing.

    Without this check every machine of a cluster would make the missing shards for itself, and a missing file would
    end a trial. Files are not opened: folders are listed.

    Raises:
        ConfigError: naming `data.root`, and what to do.
    """
    check_place(config)
    if DATASETS[config.name].shards is not None or folder_of(config.root) is None:
        return
    readers = [open_split(config, split) for split in SPLITS]
    if missing := missing_files(readers, ("image", *config.tasks)):
        raise ConfigError([f"{ROOT}: {one}" for one in missing])


def check_place(config: DataConfig) -> None:
    """Check that `data.root` is given where it is needed, and that a URI has all shards.

    Raises:
        ConfigError: naming `data.root`, and the command that uploads the shards.
    """
    entry = DATASETS[config.name]
    if entry.needs_root and config.root is None:
        source = getattr(load_builder(entry.open), "SOURCE", "") if entry.open else ""
        raise ConfigError(f"{ROOT}: must name the folder of {config.name}, got null. {source}".removesuffix(". "))
    if not config.root or not is_remote(config.root):
        return
    if entry.shards is None:
        _check_packed(config, config.root)
        return

    try:
        missing = missing_shards(config, config.root, ROOT)
    except StorageError as error:
        raise ConfigError(str(error)) from None

    if missing:
        more = f" and {len(missing) - 1} more" if len(missing) > 1 else ""
        options = shards_of(config.name).pack_options(config)
        raise ConfigError(
            f"{ROOT}: {config.root} has no {missing[0]}{more}; upload them with: "
            f"python -m faar_ray.data pack {config.name} {options} --out {config.root}"
        )


def _check_packed(config: DataConfig, uri: str) -> None:
    """Check that a URI holds packed shards of this data set and its tasks."""
    try:
        manifest = remote_manifest(uri, ROOT)
    except StorageError as error:
        raise ConfigError(str(error)) from None
    if manifest is None:
        raise ConfigError(
            f"{ROOT}: {uri} holds no packed shards; upload them with: "
            f"python -m faar_ray.data pack {config.name} --root FOLDER --out {uri}"
        )
    check_contents(config, manifest, uri)


def local_data(config: DataConfig, shards_uri: str = "", data_root: str = "") -> DataConfig:
    """The same data where this machine has them; shards in object storage are downloaded into its cache.

    Args:
        config: as the trial has it.
        shards_uri: where a search puts the shards of data that only its driver's machine has; "" for none.
        data_root: `data.root` as the driver's machine has it, where this process works in another folder.

    Raises:
        StorageError: a URI that cannot be read.
        DataError: damaged shards, or a cache that cannot be written.
    """
    if data_root:
        config = config.model_copy(update={"root": data_root})
    if DATASETS[config.name].shards is not None:
        if shards_uri and not config.root:
            download_shards(config, shards_uri, "storage.path")
        return config

    folder = folder_of(config.root)
    if config.root and is_remote(config.root):
        folder = download_packed(config.root, ROOT)
    elif folder is not None and shards_uri and not folder.exists():
        folder = download_packed(packed_uri(config, shards_uri), "storage.path")
    return config if folder is None else config.model_copy(update={"root": str(folder)})


def count_images(config: DataConfig, split: Split) -> int:
    """Number of images of a split, without downloading shards."""
    if config.root and is_remote(config.root) and DATASETS[config.name].shards is None:
        manifest = remote_manifest(config.root, ROOT)
        if manifest is not None:
            published = {name: manifest.images(name) for name in manifest.splits}
            return len(split_rows(config, split, published)[1])
    return len(open_split(config, split))


def open_split(config: DataConfig, split: Split) -> Reader:
    """The reader of a split; it loads nothing before it is asked for samples.

    Raises:
        ConfigError: a data set without a reader, or a task that it has no labels for.
    """
    check_labels(config)
    folder = folder_of(config.root)
    if folder is not None and is_packed(folder):
        return PackedReader(config, split, folder)
    build = DATASETS[config.name].open
    assert build is not None
    reader: Reader = load_builder(build)(config, split)
    return reader


def published_readers(config: DataConfig) -> dict[Split, Reader]:
    """Readers of train and val as they are published, and of test where it is not val."""
    published = config.model_copy(update={"protocol": "papers"})
    readers = {split: open_split(published, split) for split in SPLITS}
    test, val = readers["test"], readers["val"]
    if isinstance(test, FileReader) and isinstance(val, FileReader) and ids_of(test) == ids_of(val):
        del readers["test"]
    return readers


def ids_of(reader: FileReader) -> list[str]:
    """Names of all samples."""
    return [reader.id(index) for index in range(len(reader))]


def check_labels(config: DataConfig) -> None:
    """Check that a data set has a reader, and labels for the tasks.

    Raises:
        ConfigError: naming the key, its possible values, and the value.
    """
    entry = DATASETS[config.name]
    if entry.open is None:
        readable = ", ".join(name for name, other in DATASETS.items() if other.open is not None)
        raise ConfigError(f"data.name: must be one of {readable}, got {config.name!r}")

    labelled = {**entry.channels, **config.definitions}
    unknown = [task for task in config.tasks if task not in labelled]
    if unknown:
        raise ConfigError(f"data.tasks: {config.name} has {', '.join(labelled)}, got {', '.join(unknown)}")


def load_dataset(config: DataConfig, split: Split, *, cached: bool = False) -> SplitData:
    """The images of a split with the labels of `config.tasks`.

    Args:
        config: of the data.
        split: train, val or test.
        cached: decoded samples are kept in this machine's cache (`data.cache`), for they will be read often.

    Raises:
        ConfigError: the data set has no reader, or no labels for a task.
        DataError: samples that do not fit, or a cache that cannot be written.
        StorageError: a URI that cannot be read.
    """
    (data,) = load_datasets(config, (split,), cached=cached).values()
    return data


def load_datasets(config: DataConfig, splits: Sequence[Split], *, cached: bool = False) -> dict[Split, SplitData]:
    """Several splits, which share the processes that read them.

    Raises:
        As `load_dataset`.
    """
    loaded: dict[Split, SplitData] = {}
    tasks, processes, readers = tasks_of(config), 0, dict[Split, Reader]()
    for split in splits:
        reader = open_split(config, split)
        if isinstance(reader, ColumnReader):
            loaded[split] = DenseDataset(reader.columns(("image", *tasks)), tasks)
            continue
        processes = max(processes, loader_processes(config, reader))
        readers[split] = decoded(reader, config, split, processes) if cached else reader
    return {**loaded, **sample_datasets(readers, config, processes)}
