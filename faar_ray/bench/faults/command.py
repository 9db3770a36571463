"""`bench faults` on the command line."""

from __future__ import annotations

import argparse
import functools
import json
import tempfile
import time
from pathlib import Path
from typing import Any

from rich.console import Console
from rich.table import Table

EXAMPLE = "example: python -m faar_ray.bench faults --kills 20 --seed 0"


def add_parser(commands: Any, positive: Any) -> None:
    """The subcommand `faults`."""
    faults = commands.add_parser(
        "faults",
        help="kill -9 at random moments, and what a search loses",
        description="Small real searches on this machine, each struck once with SIGKILL: the driver (then --resume), "
        "the trial's process, a worker, a raylet, or all of a node of a local Ray cluster. Exit code 1 if anything is "
        "lost: a trial, more than one epoch of work, a row, a bit (one worker), a process, a placement group.",
        epilog=EXAMPLE,
    )
    faults.add_argument("--kills", type=positive, default=20, help="how many (default %(default)s)")
    faults.add_argument("--seed", type=int, default=0, help="of targets and moments (default %(default)s)")
    faults.add_argument("--workers", type=int, choices=(1, 2), default=1, help="of a trial (default %(default)s)")
    faults.add_argument("--out", type=Path, help="empty folder to keep runs and logs in (default: none are kept)")
    faults.add_argument("--json", action="store_true", help="one JSON object instead of a table")


def run(args: argparse.Namespace) -> int:
    """Run the campaign; returns the exit code."""
    from faar_ray.bench.faults.campaign import campaign, rows

    console = Console(stderr=True, highlight=False)
    started = time.monotonic()
    with tempfile.TemporaryDirectory(prefix="faults-", ignore_cleanup_errors=True) as scratch:
        folder = Path(scratch) if args.out is None else args.out.absolute()
        folder.mkdir(parents=True, exist_ok=True)
        say = functools.partial(console.print, soft_wrap=True)
        kills = campaign(folder, args.kills, args.seed, args.workers, say)
    passed = all(kill.passed(exactly=args.workers == 1) for kill in kills)
    took = round(time.monotonic() - started)
    found = {"seed": args.seed, "workers": args.workers, "seconds": took, "passed": passed, "rows": rows(kills)}
    if args.json:
        print(json.dumps(found))
    else:
        Console().print(table_of(found))
    return 0 if passed else 1


def table_of(found: dict[str, Any]) -> Table:
    """The campaign for a terminal."""
    title = f"seed {found['seed']}, {found['workers']} worker(s) a trial, {found['seconds']} s"
    names = ("target", "moment", "kills", "recovered", "epochs retrained", "median s", "worst s", "leaked", "equal")
    table = Table(*names, title=title)
    for row in found["rows"]:
        seconds = ["-" if row[key] is None else f"{row[key]:.1f}" for key in ("median_s", "worst_s")]
        counts = [str(row[key]) for key in ("kills", "recovered", "retrained")]
        leaked = "; ".join([*row["leaked"], *row["faults"]]) or "nothing"
        table.add_row(row["target"], row["moment"], *counts, *seconds, leaked, str(row["equal"]))
    return table
