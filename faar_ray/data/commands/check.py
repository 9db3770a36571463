"""`data check`: whether everything that training reads is there and as it must be."""

from __future__ import annotations

import argparse
import tempfile
from collections.abc import Sequence
from pathlib import Path

from rich.console import Console
from rich.progress import MofNCompleteColumn, Progress
from rich.table import Table

from faar_ray.config.paths import STORAGE
from faar_ray.config.trial import DataConfig
from faar_ray.data.checks.survey import MOST_TIMED, images_per_second, survey
from faar_ray.data.checks.tables import tables_of
from faar_ray.data.commands.options import Commands, add_command, config_of, entry_of, place_of
from faar_ray.data.datasets import SPLITS, Reader
from faar_ray.data.loading import check_labels, check_place, local_data, open_split, published_readers
from faar_ray.data.samples import loader_processes
from faar_ray.data.shards.shard_store import download_shards, missing_shards
from faar_ray.data.shards.verify import verify_split
from faar_ray.errors import DataError

COLUMNS = (*Progress.get_default_columns(), MofNCompleteColumn())
MOST_TOLD = 10
"""Faults that are listed."""


def add_to(commands: Commands[argparse.ArgumentParser]) -> None:
    """Add the command."""
    purpose = "read everything and tell what is missing, damaged or odd"
    parser = add_command(commands, "check", purpose, "check nyud --root NYUD_MT", run)
    parser.add_argument("--images", type=int, metavar="N", help="scenes only: images per split")
    parser.add_argument("--processes", type=int, metavar="N", help="that read (default: CPUs less one)")
    parser.add_argument(
        "--root", "--out", metavar="PATH", help=f"folder of the data set or of its shards, or {STORAGE}"
    )


def run(args: argparse.Namespace) -> None:
    """Print tables of what was found; faults are an error that names the first files."""
    if entry_of(args).shards is None:
        _check_photographs(args)
    else:
        _check_rendered(args)


def _check_photographs(args: argparse.Namespace) -> None:
    """Read all samples of all splits."""
    config = config_of(args, root=args.root)
    check_place(config)
    config = local_data(config)
    check_labels(config)
    used = {split: open_split(config, split) for split in SPLITS}
    total = sum(len(reader) for reader in published_readers(config).values())
    errors = Console(stderr=True)
    with Progress(*COLUMNS, console=errors, transient=True, disable=not errors.is_terminal) as progress:
        bar = progress.add_task(config.name, total=total)
        found = survey(config, processes=args.processes, on_sample=lambda: progress.advance(bar))

    console = Console()
    for table in tables_of(config, found, {split: len(reader) for split, reader in used.items()}):
        console.print(table)
    if found.notes:
        console.print(_listed("note", found.notes), highlight=False, soft_wrap=True, markup=False)
    faults = [*map(str, found.missing), *found.faults]
    if faults:
        raise DataError(_listed("fault", faults))
    console.print(_seconds(config, used["train"]), highlight=False, soft_wrap=True)


def _listed(what: str, texts: Sequence[str]) -> str:
    """How many there are, and the first of them, a line each."""
    plural = "s" if len(texts) > 1 else ""
    more = [f"  ... and {len(texts) - MOST_TOLD:,} more"] if len(texts) > MOST_TOLD else []
    return "\n".join([f"{len(texts):,} {what}{plural}:", *(f"  {text}" for text in texts[:MOST_TOLD]), *more])


def _seconds(config: DataConfig, train: Reader) -> str:
    """How long reading an epoch will take on this machine."""
    step = max(1, len(train) // MOST_TIMED)
    rate = images_per_second(config, train, range(0, len(train), step))
    processes = max(1, loader_processes(config, train))
    per_process = f"{rate:,.1f} images/s in each of {processes} processes" if processes > 1 else f"{rate:,.1f} images/s"
    return (
        f"reading an epoch: about {len(train) / rate / processes:,.1f} s for {len(train):,} images at "
        f"{config.size[0]}x{config.size[1]}, augmented ({per_process} of this machine)"
    )


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
