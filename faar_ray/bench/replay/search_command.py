"""`bench search` on the command line."""

from __future__ import annotations

import argparse
import functools
import json
import tempfile
from pathlib import Path
from typing import Any

from rich.console import Console
from rich.table import Table

EXAMPLE = "example: python -m faar_ray.bench search --trials 1000 --nodes 4"
JSON = (
    "one JSON object instead of a table: replay (true), trials, nodes, results (epochs), seconds, goals (name, goal, "
    "measured, met), ask_tell_ms and next_trial_s (p50, p95), driver (ms per result), epoch_s (a recorded epoch's "
    "training), memory_mb ([trials ended, MB]), memory_mb_per_100_trials, journal (mb, read_s), ended (by state)"
)


def add_parser(commands: Any, positive: Any) -> None:
    """The subcommand `search`."""
    search = commands.add_parser(
        "search",
        help="what a search costs beside training",
        description="A REPLAY, no training: a whole search over rho on a local Ray cluster of several nodes, with the "
        "real searcher, scheduler, Ray Tune, MLflow, Parquet and report, whose trials replay epochs recorded from "
        "trials of search_spaces/rho.yaml, interpolated in rho, with noise of the size that two seeds showed.",
        epilog=EXAMPLE,
    )
    search.add_argument("--trials", type=positive, default=1000, help="to replay (default %(default)s)")
    search.add_argument("--nodes", type=positive, default=4, help="of one CPU each, in name (default %(default)s)")
    search.add_argument("--out", type=Path, help="empty folder to keep the run in (default: it is not kept)")
    search.add_argument("--json", action="store_true", help=JSON)


def run(args: argparse.Namespace) -> int:
    """Run it; returns the exit code."""
    from faar_ray.bench.replay.search import measure

    console = Console(stderr=True, highlight=False)
    with tempfile.TemporaryDirectory(prefix="replay-", ignore_cleanup_errors=True) as scratch:
        folder = Path(scratch) if args.out is None else args.out.absolute()
        folder.mkdir(parents=True, exist_ok=True)
        found = measure(folder, args.trials, args.nodes, functools.partial(console.print, soft_wrap=True))
    if args.json:
        print(json.dumps(found))
    else:
        Console().print(table_of(found), *sentences(found), sep="\n")
    return 0


def table_of(found: dict[str, Any]) -> Table:
    """Goals and what was measured."""
    title = f"REPLAY of {found['trials']} trials ({found['results']} epochs) on {found['nodes']} nodes"
    table = Table("", "measured", "goal", "", title=title)
    for row in found["goals"]:
        table.add_row(row["name"], f"{row['measured']:.2f}", f"{row['goal']:g}", "" if row["met"] else "missed")
    return table


def sentences(found: dict[str, Any]) -> list[str]:
    """What no goal says."""
    driver, memory, asked = found["driver"], found["memory_mb"], found["ask_tell_ms"]
    last, cpu = asked["last"], asked["last_cpu"]
    return [
        f"ask + tell: median {asked['p50']} ms, p95 {asked['p95']} ms over all trials; of the last {last['p50']} and "
        f"{last['p95']} ms, {cpu['p50']} and {cpu['p95']} ms are CPU, the rest waits for the disk or a core",
        f"per result: {driver['thread_cpu_ms_per_result']} ms of CPU of the driver's thread, of which verdict and "
        f"journal; these took {driver['journal_and_verdict_ms_per_result']} ms with all waiting",
        f"beside training: {driver['process_cpu_ms_per_result']} ms of CPU of the driver's process (its thread, "
        f"MLflow's, pictures, the report) and {driver['written_ms_per_result']} ms of writing in the trial, per epoch "
        f"of {found['epoch_s']} s as recorded",
        f"memory of the driver: {found['memory_mb_per_100_trials']} MB per 100 trials; MB by trials: "
        + ", ".join(f"{trials}: {mb:.0f}" for trials, mb in memory),
        f"journal: {found['journal']['mb']} MB, read by --resume in {found['journal']['read_s']} s",
    ]
