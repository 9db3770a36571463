"""`bench scale` on the command line."""

from __future__ import annotations

import argparse
import functools
import json
import tempfile
from pathlib import Path
from typing import Any

from rich.console import Console
from rich.table import Table

from faar_ray.errors import ConfigError

EXAMPLE = "example: python -m faar_ray.bench scale --machines 200 --pace 30"


def add_parser(commands: Any, positive: Any) -> None:
    """The subcommand `scale`."""
    scale = commands.add_parser(
        "scale",
        help="what breaks first on many machines",
        description="A REPLAY, no training: a whole search with as many trials at once as there are machines, which "
        "are CPUs in name of four Ray nodes on this machine. Trials replay recorded epochs and sleep, in processes "
        "without torch, 0.1 GB each.",
        epilog=EXAMPLE,
    )
    scale.add_argument("--machines", type=positive, default=200, help="one trial each (default %(default)s)")
    scale.add_argument("--rounds", type=positive, default=3, help="trials of each machine (default %(default)s)")
    scale.add_argument("--pace", type=float, default=30.0, help="seconds of an epoch (default %(default)g)")
    scale.add_argument("--json", action="store_true", help="one JSON object instead of a table")


def run(args: argparse.Namespace) -> int:
    """Run it; returns the exit code."""
    from faar_ray.bench.replay.scale import RAYLETS, measure

    if args.machines % RAYLETS:
        raise ConfigError(f"--machines: must be a multiple of {RAYLETS}, got {args.machines}")
    if not args.pace >= 0:
        raise ConfigError(f"--pace: must be 0 or more seconds, got {args.pace:g}")
    say = functools.partial(Console(stderr=True, highlight=False).print, soft_wrap=True)
    with tempfile.TemporaryDirectory(prefix="scale-", ignore_cleanup_errors=True) as scratch:
        found = measure(Path(scratch), args.machines, args.rounds, args.pace, say)
    if args.json:
        print(json.dumps(found))
    else:
        Console().print(table_of(found))
    return 0


def table_of(found: dict[str, Any]) -> Table:
    """What was measured."""
    many = f"{found['trials']} trials on {found['machines']} machines in name"
    mlflow, table = found["mlflow"], Table("", "measured", title=f"REPLAY of {many}, {found['pace_s']:g} s an epoch")
    for name, value in (
        ("all machines have a trial, s", found["all_handed_out_s"]),
        ("all trials have begun their first epoch, s", found["all_busy_s"]),
        ("results per second, at full load", found["results_per_s"]),
        ("trials that end per minute", found["trials_per_min"]),
        ("driver, % of a core", found["driver_cpu_percent"]),
        ("GCS, % of a core", found["gcs_cpu_percent"]),
        ("GCS, MB at the beginning and at most", " to ".join(map(str, found["gcs_mb"]))),
        ("driver, MB at the beginning and at most", " to ".join(map(str, found["driver_mb"]))),
        ("writes to MLflow, asked for per second", mlflow["asked_per_s"]),
        ("writes to MLflow, made per second", mlflow["made_per_s"]),
        ("writes to MLflow, waiting at most", mlflow["most_waiting"]),
        ("from the last trial's end to the search's, s", mlflow["late_s"]),
    ):
        table.add_row(name, str(value))
    return table
