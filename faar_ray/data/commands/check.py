"""`data check`: whether everything that training reads is there and as it must be."""

from __future__ import annotations

import argparse
import tempfile
from pathlib import Path

from rich.console import Console
from rich.table import Table

from faar_ray.config.paths import STORAGE
from faar_ray.config.trial import DataConfig
from faar_ray.data.commands.options import Commands, add_command, config_of, entry_of, place_of
from faar_ray.data.datasets import SPLITS
from faar_ray.data.shards.shard_store import download_shards, missing_shards
from faar_ray.data.shards.verify import verify_split
from faar_ray.errors import DataError


def add_to(commands: Commands[argparse.ArgumentParser]) -> None:
    """Add the command."""
    purpose = "read everything and tell what is missing, damaged or odd"
    parser = add_command(commands, "check", purpose, "check scenes", run)
    parser.add_argument("--images", type=int, metavar="N", help="scenes only: images per split")
    parser.add_argument(
        "--root", "--out", metavar="PATH", help=f"folder of the data set or of its shards, or {STORAGE}"
    )


def run(args: argparse.Namespace) -> None:
    """Print tables of what was found; faults are an error that names the first files."""
    if entry_of(args).shards is None:
        raise DataError(f"data.name: must be scenes, got {args.dataset!r}")
    _check_rendered(args)


def _check_rendered(args: argparse.Namespace) -> None:
    """A table of the shards, those of a URI after a download."""
    config = config_of(args, domain=args.domain or "target", images=args.images)
    folder, uri = place_of(args.root, "--root")
    if uri and (missing := missing_shards(config, uri, "--root")):
        raise DataError(f"{uri}: {len(missing)} shards are missing, first {missing[0]}: run `pack` with this --out")
    with tempfile.TemporaryDirectory() as scratch:
        if uri:
            download_shards(config, uri, "--root", folder := Path(scratch))
        _check_shards(args, config, folder)


def _check_shards(args: argparse.Namespace, config: DataConfig, cache: Path | None) -> None:
    reports = [report for split in SPLITS for report in verify_split(config, split, cache)]
    folder = reports[0].path.parent
    if not any(report.path.exists() for report in reports):
        raise DataError(f"{folder}: no shards; make them with `python -m faar_ray.data pack {args.dataset}`")
    table = Table("shard", "rows", "sha256", "result", title=str(args.root or folder), title_justify="left")
    for report in reports:
        table.add_row(report.path.name, str(report.rows), report.digest[:12], report.fault or "ok")
    Console().print(table)

    unusable = [report.path for report in reports if report.fault]
    if unusable:
        count = f"{len(unusable)} of {len(reports)} shards are missing or damaged"
        raise DataError(f"{count}, first {unusable[0]}: delete it if it is there, then run `pack`")
