"""`data pack`: the shards of all splits, in a folder or in object storage."""

from __future__ import annotations

import argparse
import time

from rich.console import Console
from rich.progress import Progress, TextColumn

from faar_ray.config.paths import STORAGE
from faar_ray.data.commands.options import Commands, add_command, config_of, entry_of, place_of
from faar_ray.data.datasets import SPLITS
from faar_ray.data.loading import check_root
from faar_ray.data.packed.places import packed_cache
from faar_ray.data.packed.transfer import upload_packed
from faar_ray.data.packed.write import PackOptions, pack, packable_readers
from faar_ray.data.shards.shard_set import shards_of
from faar_ray.data.shards.shard_store import upload_shards
from faar_ray.errors import ConfigError


def add_to(commands: Commands[argparse.ArgumentParser]) -> None:
    """Add the command."""
    example = "pack nyud --root NYUD_MT --out s3://BUCKET/nyud"
    parser = add_command(commands, "pack", "write the shards of all splits", example, run)
    parser.add_argument("--root", metavar="FOLDER", help="folder of the data set; not for scenes")
    parser.add_argument("--out", metavar="PATH", help=f"folder, or {STORAGE}; scenes: null is the cache")
    parser.add_argument("--images", type=int, metavar="N", help="scenes only: images per split")
    parser.add_argument("--longest", type=int, metavar="PIXELS", help="make images with a longer side smaller")
    parser.add_argument("--compact", action="store_true", help="normals as int8, depth as float16: fewer bytes")
    parser.add_argument("--processes", type=int, metavar="N", help="that read (default: CPUs less one)")


def run(args: argparse.Namespace) -> None:
    """Write the missing shards, upload them where `--out` is a URI, and print where they are."""
    if entry_of(args).shards is None:
        _pack_photographs(args)
    else:
        _pack_rendered(args)


def _pack_photographs(args: argparse.Namespace) -> None:
    if not args.out:
        raise ConfigError("--out: must name a folder or URI for the shards, got none")
    config = config_of(args, root=args.root)
    check_root(config)
    folder, uri = place_of(args.out, "--out")
    folder = folder or packed_cache(config, config.tasks)
    total = sum(len(reader) for reader in packable_readers(config).values())

    columns = (
        *Progress.get_default_columns(),
        TextColumn("{task.completed:,.0f} of {task.total:,.0f} images, {task.fields[mb]:,.0f} MB"),
        TextColumn("{task.fields[rate]:,.0f} images/s"),
    )
    started, counts = time.perf_counter(), {"images": 0, "bytes": 0}
    with Progress(*columns, console=Console(stderr=True), transient=True) as progress:
        bar = progress.add_task(config.name, total=total, mb=0, rate=0)

        def on_images(images: int, size: int) -> None:
            counts["images"] += images
            counts["bytes"] += size
            rate = counts["images"] / (time.perf_counter() - started)
            progress.update(bar, completed=counts["images"], mb=counts["bytes"] / 1e6, rate=rate)

        options = PackOptions(args.longest, args.compact)
        manifest = pack(config, folder, options, processes=args.processes, on_images=on_images)
        if uri:
            bar = progress.add_task(uri, total=len(manifest.shards), mb=counts["bytes"] / 1e6, rate=0)
            upload_packed(folder, uri, "--out", lambda done, _: progress.update(bar, completed=done))

    splits = ", ".join(f"{manifest.images(split):,} {split}" for split in manifest.splits)
    seconds = time.perf_counter() - started
    note = f"{splits}; {', '.join(manifest.tasks)}; {counts['bytes'] / 1e6:,.1f} MB in {seconds:,.0f} s"
    Console(stderr=True).print(note, highlight=False, soft_wrap=True)
    print(uri or folder)


def _pack_rendered(args: argparse.Namespace) -> None:
    config = config_of(args, domain=args.domain or "target", images=args.images)
    folder, uri = place_of(args.out, "--out")
    shards = shards_of(args.dataset)
    with Progress(console=Console(stderr=True), transient=True) as progress:
        for split in SPLITS:
            paths = shards.paths(config, split, folder)
            bar = progress.add_task(f"{config.domain} {split}", total=sum(not path.exists() for path in paths))
            shards.make(config, split, folder, lambda _, bar=bar: progress.advance(bar))  # type: ignore[misc]
        if uri:
            bar = progress.add_task(uri)
            upload_shards(config, uri, "--out", lambda done, total: progress.update(bar, completed=done, total=total))
    print(uri or paths[0].parent)
