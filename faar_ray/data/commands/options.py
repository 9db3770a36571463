"""Options that the data commands share, and the config that they make."""

from __future__ import annotations

import argparse
from collections.abc import Callable
from pathlib import Path
from typing import Any

from pydantic import ValidationError

from faar_ray.config.data_section import import_registering
from faar_ray.config.paths import is_remote, storage_fault
from faar_ray.config.registries import DATASETS, DatasetEntry
from faar_ray.config.trial import DataConfig
from faar_ray.config.validation_messages import issues_of
from faar_ray.data.datasets import SPLITS
from faar_ray.errors import ConfigError, DataError

Commands = argparse._SubParsersAction  # argparse has no public name for it
Run = Callable[[argparse.Namespace], None]
FLAGS = {"image_size": "--size", "train_images": "--images"}
"""Options that are called otherwise than their key."""
RENDERED_SIZE, PHOTOGRAPH_SIZE = 64, 448
"""Sides of the images without `--size`, pixels."""


def add_command(
    commands: Commands[argparse.ArgumentParser], name: str, purpose: str, example: str, run: Run
) -> argparse.ArgumentParser:
    """A command `NAME DATASET` with the options that say what is read; `args.run` runs it."""
    parser = commands.add_parser(
        name,
        help=purpose,
        description=f"{purpose[0].upper()}{purpose[1:]}.",
        epilog=f"example: python -m faar_ray.data {example}",
    )
    readable = ", ".join(name for name, entry in DATASETS.items() if entry.open)
    domains = sorted({domain for entry in DATASETS.values() for domain in entry.domains})
    parser.add_argument("dataset", metavar="DATASET", help=readable)
    parser.add_argument("--module", help="Python module that registers the data set (data.module)")
    parser.add_argument("--tasks", metavar="A,B", help="default: all that the data set has labels for")
    parser.add_argument(
        "--size", type=int, metavar="PIXELS", help=f"side of the images (default {RENDERED_SIZE}, {PHOTOGRAPH_SIZE})"
    )
    parser.add_argument("--seed", type=int, default=0, help="of scenes, or of what train holds out as val (default 0)")
    parser.add_argument("--domain", choices=domains, help="scenes only; default: target (show: both)")
    parser.set_defaults(run=run)
    return parser


def entry_of(args: argparse.Namespace) -> DatasetEntry:
    """The data set that the command line names.

    Raises:
        ConfigError: a `--module` that cannot be imported.
        DataError: there is none of that name, or it cannot be read.
    """
    if args.module:
        try:
            import_registering(args.module)
        except ValueError as error:
            raise ConfigError(f"--{error}") from None
    readable = {name: entry for name, entry in DATASETS.items() if entry.open}
    if args.dataset not in readable:
        raise DataError(f"data.name: must be one of {', '.join(readable)}, got {args.dataset!r}")
    return readable[args.dataset]


def config_of(
    args: argparse.Namespace, *, root: str | None = None, domain: str = "target", images: int | None = None
) -> DataConfig:
    """The data section that the command line means.

    Args:
        args: of a command that `add_command` made.
        root: `data.root`.
        domain: which one is drawn from, of data that are drawn.
        images: of each split, of data that are drawn.

    Raises:
        ConfigError: faults, by option.
    """
    entry = entry_of(args)
    size = args.size or (PHOTOGRAPH_SIZE if entry.needs_root else RENDERED_SIZE)
    values: dict[str, Any] = {"name": args.dataset, "image_size": size, "seed": args.seed, "domain": domain}
    if args.module:
        values["module"] = args.module
    if root is not None:
        values["root"] = root
    if images is not None:
        values |= {f"{split}_images": images for split in SPLITS}
    if args.tasks:
        values["tasks"] = tuple(args.tasks.split(","))
    elif entry.channels:  # a data set that describes itself names its own
        values["tasks"] = tuple(entry.channels)

    try:
        return DataConfig.model_validate(values)
    except ValidationError as error:
        issues = issues_of(error, DataConfig, values)
        repeated = ("val_images", "test_images")  # said of train_images already
        faults = [issue for issue in issues if issue.name not in repeated]
        raise ConfigError([f"{FLAGS.get(i.name, f'--{i.name}')}: {i.text}" for i in faults]) from error


def place_of(place: str | None, option: str) -> tuple[Path | None, str]:
    """A place that an option names as a folder (None: this machine's cache) and a URI ("": none).

    Raises:
        ConfigError: a URI that cannot be one.
    """
    if not place:
        return None, ""
    if problem := storage_fault(place):
        raise ConfigError(f"{option}: {problem}")
    return (None, place) if is_remote(place) else (Path(place), "")
