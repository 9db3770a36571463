"""`python -m faar_ray.bench step|faults|search|scale|stock`: what steps and searches cost, lose and find."""

from __future__ import annotations

import argparse
import json
import sys
from collections.abc import Sequence
from typing import Any, get_args

import torch
import yaml
from pydantic import ValidationError
from rich.console import Console
from rich.table import Table

from faar_ray.bench.faults import command as fault_command
from faar_ray.bench.replay import scale_command, search_command
from faar_ray.bench.step.step import measure
from faar_ray.bench.step.variants import VARIANTS, Setting
from faar_ray.bench.stock import command as stock_command
from faar_ray.command_line import run_command
from faar_ray.config.trial import Method, TrialConfig
from faar_ray.config.validation_messages import issues_of
from faar_ray.errors import ConfigError

COMMANDS = {"faults": fault_command, "search": search_command, "scale": scale_command, "stock": stock_command}
EXAMPLE = "example: python -m faar_ray.bench step --image-size 224 --pairs 5"


def main(argv: Sequence[str] | None = None) -> int:
    """Run the command; returns its exit code."""
    args = _parser().parse_args(argv)
    command = COMMANDS[args.what].run if args.what in COMMANDS else show_step
    return run_command(lambda: command(args))


def show_step(args: argparse.Namespace) -> None:
    """Measure steps and print the result."""
    result = run_step(args)
    if args.json:
        print(json.dumps(result))
    else:
        Console().print(table_of(result))


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="python -m faar_ray.bench", description="Measure.", epilog=EXAMPLE)
    commands = parser.add_subparsers(dest="what", required=True)
    for command in COMMANDS.values():
        command.add_parser(commands, _positive)
    step = commands.add_parser(
        "step",
        help="a training step against the floor",
        description="Whole steps (forward, backward, AdamW) on random images, four PASCAL tasks, backbone frozen but "
        "for its norms; each row alternates with the floor (no adapters), and its ratio is the median over pairs.",
        epilog=EXAMPLE,
    )
    step.add_argument("--method", choices=get_args(Method), help="one preset instead of the standard variants")
    step.add_argument(
        "--set", action="append", default=[], metavar="KEY=VALUE", help="with --method: a key of its trial config"
    )
    step.add_argument("--backbone", default="swin_tiny_patch4_window7_224", help="any timm Swin, or swin_micro")
    step.add_argument("--image-size", type=_positive, default=448, help="side, pixels (default %(default)s)")
    step.add_argument("--batch", type=_positive, default=2, help="images (default %(default)s)")
    step.add_argument("--rank", type=_positive, default=64, help="at the start (default %(default)s)")
    step.add_argument("--shrunk", type=_positive, default=5, help="and after shrinking (default %(default)s)")
    step.add_argument("--pairs", type=_positive, default=9, help="steps of each row (default %(default)s)")
    step.add_argument("--threads", type=_positive, help="of torch (default: as torch chooses)")
    step.add_argument("--device", default="cpu", help="cpu or cuda (default %(default)s)")
    step.add_argument("--precision", choices=("fp32", "bf16"), default="fp32", help="autocast (default %(default)s)")
    step.add_argument("--compile", action="store_true", help="every row under torch.compile, the floor too")
    step.add_argument("--no-memory", action="store_true", help="do not start a process per row for its peak memory")
    step.add_argument("--json", action="store_true", help="one JSON object instead of a table")
    return parser


def _positive(text: str) -> int:
    if (value := int(text)) < 1:
        raise argparse.ArgumentTypeError(f"must be at least 1, got {value}")
    return value


def run_step(args: argparse.Namespace) -> dict[str, Any]:
    """Measure what the arguments ask for.

    Raises:
        ConfigError: a device that is not there, or a backbone that is no Swin.
    """
    if not args.backbone.startswith("swin_"):
        raise ConfigError(f"--backbone: must be swin_micro or a timm Swin (swin_*), got {args.backbone!r}")
    if args.device != "cpu" and not torch.cuda.is_available():
        raise ConfigError(f"--device: must be cpu where torch sees no accelerator, got {args.device!r}")
    if args.threads:
        torch.set_num_threads(args.threads)
    variants = VARIANTS if args.method is None else {args.method: {"method": args.method, **keys_of(args.set)}}
    try:
        for keys in variants.values():
            TrialConfig.resolve({}, **keys)
    except ValidationError as error:
        raise ConfigError("; ".join(f"{f.name}: {f.text}" for f in issues_of(error, TrialConfig, {}))) from None
    base = Setting("", args.rank, args.backbone, args.image_size, args.batch, args.precision, args.compile)
    return measure(
        base,
        variants,
        shrunk=args.shrunk,
        pairs=args.pairs,
        memory=not args.no_memory,
        device=torch.device(args.device),
    )


def keys_of(pairs: Sequence[str]) -> dict[str, Any]:
    """`key=value` pairs, values read as YAML.

    Raises:
        ConfigError: something that is no pair.
    """
    if odd := next((pair for pair in pairs if not pair.partition("=")[1]), None):
        raise ConfigError(f"--set: must be KEY=VALUE, got {odd!r}")
    return {key: yaml.safe_load(value) for key, _, value in (pair.partition("=") for pair in pairs)}


def table_of(found: dict[str, Any]) -> Table:
    """Medians, ratios and peaks for a terminal."""
    title = (
        f"step on {found['device']}, {found['threads']} threads, {found['image_size']} px, batch {found['batch']}, "
        f"{found.get('precision', 'fp32')}{', compiled' if 'compiled' in found else ''}: "
        f"floor {found['floor_ms']:.0f} ms"
    )
    table = Table("variant", "rank", "ms", "ratio to floor", "by MACs", "peak MB", "trainable", title=title)
    for column in table.columns[1:]:
        column.justify = "right"
    for row in found["rows"]:
        peak = "-" if row["peak_mb"] is None else f"{row['peak_mb']:.0f}"
        table.add_row(
            row["variant"],
            str(row["rank"] or "-"),
            f"{row['ms']:.0f}",
            f"{row['ratio']:.2f}",
            "-" if row["macs_ratio"] is None else f"{row['macs_ratio']:.2f}",
            peak,
            f"{row['trainable_params']:,}",
        )
    return table


if __name__ == "__main__":
    sys.exit(main())
