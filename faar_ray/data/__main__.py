"""`python -m faar_ray.data pack|check|show DATASET`."""

from __future__ import annotations

import argparse
import tempfile
from collections.abc import Callable, Sequence
from pathlib import Path

from pydantic import ValidationError
from rich.console import Console
from rich.progress import Progress
from rich.table import Table

from faar_ray.command_line import run_command, run_process
from faar_ray.config.paths import STORAGE, is_remote, storage_fault
from faar_ray.config.registries import DATASETS
from faar_ray.config.trial import DataConfig
from faar_ray.data.contact_sheet import write_contact_sheet
from faar_ray.data.datasets import SPLITS
from faar_ray.data.loading import load_dataset
from faar_ray.data.shards.shard_set import shards_of
from faar_ray.data.shards.shard_store import download_shards, missing_shards, upload_shards
from faar_ray.data.shards.verify import verify_split
from faar_ray.errors import ConfigError, DataError

FLAGS = {"image_size": "--size", "seed": "--seed", "train_images": "--images", "domain": "--domain"}


def main(argv: Sequence[str] | None = None) -> int:
    """Run one command; returns its exit code."""
    args = _parser().parse_args(argv)
    commands = {"pack": pack, "check": check, "show": show}
    return run_command(lambda: _run(commands[args.command], args))


def _run(command: Callable[[argparse.Namespace], None], args: argparse.Namespace) -> None:
    names = [name for name, entry in DATASETS.items() if (entry.open if command is show else entry.shards)]
    if args.dataset not in names:
        raise DataError(f"data.name: must be one of {', '.join(names)}, got {args.dataset!r}")
    command(args)


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="python -m faar_ray.data",
        description="Make, check and look at data sets.",
        epilog="example: python -m faar_ray.data show scenes --out out/scenes.png",
    )
    commands = parser.add_subparsers(dest="command", required=True, metavar="pack|check|show")
    where = f"folder instead of the cache, or {STORAGE}"
    _command(commands, "pack", "write the shards of all splits", "images per split", where, "pack scenes")
    _command(commands, "check", "verify rows, ranges, hashes", "images per split", where, "check scenes")
    _command(commands, "show", "write a contact sheet (PNG)", "rows per domain", "the PNG", "show scenes --images 6")
    return parser


def _command(
    commands: argparse._SubParsersAction[argparse.ArgumentParser],
    name: str,
    purpose: str,
    images: str,
    out: str,
    example: str,
) -> None:
    epilog = f"example: python -m faar_ray.data {example}"
    parser = commands.add_parser(name, help=purpose, description=f"{purpose[0].upper()}{purpose[1:]}.", epilog=epilog)
    readable = ", ".join(name for name, entry in DATASETS.items() if entry.open)
    domains = sorted({domain for entry in DATASETS.values() for domain in entry.domains})
    parser.add_argument("dataset", metavar="DATASET", help=readable)
    parser.add_argument("--domain", choices=domains, help="default: target (show: both)")
    parser.add_argument("--images", type=int, metavar="N", help=images)
    parser.add_argument("--out", metavar="PATH", help=out)
    parser.add_argument("--size", type=int, default=64, metavar="PIXELS", help="side of the images (default 64)")
    parser.add_argument("--seed", type=int, default=0, help="seed of the generator (default 0)")


def _config(args: argparse.Namespace, domain: str, images: int | None) -> DataConfig:
    counts = {} if images is None else {f"{split}_images": images for split in SPLITS}
    tasks = tuple(DATASETS[args.dataset].channels)
    values = {"name": args.dataset, "tasks": tasks, "domain": domain, "image_size": args.size, "seed": args.seed}
    try:
        return DataConfig.model_validate(values | counts)
    except ValidationError as error:
        issues = [(str(issue["loc"][0]), issue) for issue in error.errors()]
        lines = [f"{FLAGS[key]}: {issue['msg']}, got {issue['input']}" for key, issue in issues if key in FLAGS]
        raise ConfigError(lines or str(error)) from error


def _cache(args: argparse.Namespace) -> tuple[Path | None, str]:
    """`--out` as a folder (None: this machine's cache) and a URI ("": none)."""
    if not args.out:
        return None, ""
    if problem := storage_fault(args.out):
        raise ConfigError(f"--out: {problem}")
    return (None, args.out) if is_remote(args.out) else (Path(args.out), "")


def pack(args: argparse.Namespace) -> None:
    """Make the missing shards of all splits, upload them where `--out` is a URI, and print where they are."""
    config = _config(args, args.domain or "target", args.images)
    folder, uri = _cache(args)
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


def check(args: argparse.Namespace) -> None:
    """Print a table of the shards, those of a URI after a download; a damaged or missing one is an error."""
    config = _config(args, args.domain or "target", args.images)
    folder, uri = _cache(args)
    if uri and (missing := missing_shards(config, uri, "--out")):
        raise DataError(f"{uri}: {len(missing)} shards are missing, first {missing[0]}: run `pack` with this --out")
    with tempfile.TemporaryDirectory() as scratch:
        if uri:
            download_shards(config, uri, "--out", folder := Path(scratch))
        _check(args, config, folder)


def _check(args: argparse.Namespace, config: DataConfig, cache: Path | None) -> None:
    reports = [report for split in SPLITS for report in verify_split(config, split, cache)]
    folder = reports[0].path.parent
    if not any(report.path.exists() for report in reports):
        raise DataError(f"{folder}: no shards; make them with `python -m faar_ray.data pack {args.dataset}`")
    table = Table("shard", "rows", "sha256", "result", title=str(args.out or folder), title_justify="left")
    for report in reports:
        table.add_row(report.path.name, str(report.rows), report.digest[:12], report.fault or "ok")
    Console().print(table)

    unusable = [report.path for report in reports if report.fault]
    if unusable:
        count = f"{len(unusable)} of {len(reports)} shards are missing or damaged"
        raise DataError(f"{count}, first {unusable[0]}: delete it if it is there, then run `pack`")


def show(args: argparse.Namespace) -> None:
    """Write the contact sheet of validation images, and print where it is."""
    images = 4 if args.images is None else args.images
    domains = [args.domain] if args.domain else DATASETS[args.dataset].domains
    configs = {domain: _config(args, domain, images) for domain in domains}
    if not configs:
        configs = {args.dataset: _config(args, "target", images)}

    path = Path(args.out or Path("out") / f"{args.dataset}.png").absolute()
    write_contact_sheet({label: load_dataset(config, "val") for label, config in configs.items()}, path, images)
    print(path)


if __name__ == "__main__":
    run_process(main)
