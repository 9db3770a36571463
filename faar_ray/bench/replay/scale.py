"""What breaks first on many machines: a whole search whose trials replay and sleep, on machines that there are in name.

Searcher, scheduler, Ray Tune, GCS, journal, MLflow, Parquet and report are real. A trial is a process of its own that
computes nothing and imports no torch; a machine is a CPU in name of one of a few Ray nodes, all on this machine.
"""

from __future__ import annotations

import argparse
import functools
import threading
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import psutil
from rich.table import Table

from faar_ray.bench.local_cluster import local_cluster
from faar_ray.bench.output import Notify, notifier, print_result, working_folder
from faar_ray.bench.replay.paced import at_pace
from faar_ray.bench.replay.replay import replay_space
from faar_ray.bench.replay.stopwatch import Clock, Stopwatch, TimedSearchState
from faar_ray.cluster.ray_cluster import set_defaults
from faar_ray.errors import ConfigError
from faar_ray.tune.run.resolved_search import resolve
from faar_ray.tune.search import Parts, run_search

RAYLETS = 4
"""Ray nodes that the machines are spread over: a raylet and its agents take 0.3 GB."""
SAMPLE_S = 1.0
LABELS = {
    "all_handed_out_s": "all machines have a trial, s",
    "all_busy_s": "all trials have begun their first epoch, s",
    "results_per_s": "results per second, at full load",
    "trials_per_min": "trials that end per minute",
    "driver_cpu_percent": "driver, % of a core",
    "gcs_cpu_percent": "GCS, % of a core",
    "gcs_mb": "GCS, MB at the beginning and at most",
    "driver_mb": "driver, MB at the beginning and at most",
    "asked_per_s": "updates for MLflow per second",
    "made_per_s": "written to MLflow per second",
    "most_waiting": "updates that wait for MLflow, at most",
    "late_s": "from the last trial's end to the search's, s",
}
"""Figures by their names in `--json`, and what a person reads."""
CROWDED = {"RAY_health_check_failure_threshold": "60", "RAY_memory_monitor_refresh_ms": "0"}
"""All machines' processes start on this one: a raylet that gets no core for a minute, and a memory that is nearly full,
are faults of this simulation, not of the search."""


def run(args: argparse.Namespace) -> None:
    """`bench scale`: measure, and print.

    Raises:
        ConfigError: machines that cannot be spread, or no pace.
    """
    if args.machines % RAYLETS:
        raise ConfigError(f"--machines: must be a multiple of {RAYLETS}, got {args.machines}")
    if not args.pace >= 0:
        raise ConfigError(f"--pace: must be 0 or more seconds, got {args.pace:g}")
    with working_folder(args) as folder:
        result = measure_scale(folder, args.machines, args.rounds, args.pace, notifier())
    print_result(args, result, table_of(result))


def measure_scale(folder: Path, machines: int, rounds: int, pace_s: float, notify: Notify) -> dict[str, Any]:
    """Run a search of `machines * rounds` paced replays, as many at once as there are machines.

    Args:
        folder: empty; the run and its MLflow database are left in it.
        machines: one trial each; a multiple of RAYLETS.
        rounds: trials per machine.
        pace_s: seconds of an epoch.
        notify: called with the progress.
    """
    set_defaults(CROWDED)
    space, clock = replay_space(folder, machines * rounds), Clock()
    with local_cluster(RAYLETS, machines // RAYLETS) as cluster, Stopwatch(space, clock, notify) as progress:
        with Sampler(clock, lambda: progress.waiting()) as sampler:
            parts = Parts(search_state=functools.partial(TimedSearchState, clock=clock), actor=at_pace(pace_s))
            outcome = run_search(resolve(space, cluster.address), progress, resume=False, parts=parts)
        clock.finish()
    return figures(clock, sampler.rows, machines, pace_s) | {"ended": outcome.counts}


class Sampler:
    """Looks every second at what grows: trials at work, writes that wait for MLflow, memory, the driver's CPU time."""

    def __init__(self, clock: Clock, waiting: Callable[[], int]) -> None:
        self.clock, self.waiting = clock, waiting
        self.rows: list[dict[str, float]] = []
        self._over = threading.Event()
        self._thread = threading.Thread(target=self._work, daemon=True)

    def __enter__(self) -> Sampler:
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._over.set()
        self._thread.join()

    def _work(self) -> None:
        gcs, driver = gcs_server(), psutil.Process()
        while not self._over.wait(SAMPLE_S):
            reported = len(self.clock.waited)
            self.rows.append(
                {
                    "s": time.monotonic(),
                    "handed": len(self.clock.handed),
                    "reporting": reported,
                    "ended": self.clock.ended,
                    "results": len(self.clock.written),
                    "waiting": self.waiting(),
                    "cpu_s": time.process_time(),
                    "driver_mb": driver.memory_info().rss / 1e6,
                    "gcs_mb": gcs.memory_info().rss / 1e6,
                    "gcs_cpu_s": sum(gcs.cpu_times()[:2]),
                }
            )


def gcs_server() -> psutil.Process:
    """That of the cluster that this process has just started."""
    children = psutil.Process().children(recursive=True)
    return next(child for child in children if "gcs_server" in child.name())


def figures(clock: Clock, rows: list[dict[str, float]], machines: int, pace_s: float) -> dict[str, Any]:
    """The measurements as plain values; rates are means from the first moment of full load to the last hand-over."""
    begun = min(clock.handed.values())
    handed = sorted(clock.handed.values())
    first = sorted(clock.handed[trial] + wait for trial, wait in clock.waited.items())
    full = [row for row in rows if row["reporting"] >= machines and row["handed"] < len(handed)] or rows
    span = max(full[-1]["s"] - full[0]["s"], SAMPLE_S)

    def rate(name: str) -> float:
        return (full[-1][name] - full[0][name]) / span

    ended = [row for row in rows if row["ended"] >= len(handed)] or rows[-1:]
    return {
        "replay": True,
        "machines": machines,
        "trials": len(handed),
        "results": len(clock.written),
        "pace_s": pace_s,
        "all_handed_out_s": round(handed[machines - 1] - begun, 1),
        "ask_ms": round(1000 * float(np.median(list(clock.asked.values()))), 1),
        "all_busy_s": round(first[machines - 1] - pace_s - begun, 1),
        "loaded_s": round(span, 1),
        "results_per_s": round(rate("results"), 2),
        "trials_per_min": round(60 * rate("ended"), 1),
        "driver_cpu_percent": round(100 * rate("cpu_s")),
        "gcs_cpu_percent": round(100 * rate("gcs_cpu_s")),
        "gcs_mb": [round(rows[0]["gcs_mb"]), round(max(row["gcs_mb"] for row in rows))],
        "driver_mb": [round(rows[0]["driver_mb"]), round(max(row["driver_mb"] for row in rows))],
        "mlflow": {
            "asked_per_s": round(rate("results") + 2 * rate("ended"), 2),
            "made_per_s": round(rate("results") + 2 * rate("ended") - rate("waiting"), 2),
            "most_waiting": round(max(row["waiting"] for row in rows)),
            "late_s": round(rows[-1]["s"] - ended[0]["s"], 1),
        },
    }


def table_of(result: dict[str, Any]) -> Table:
    """What was measured."""
    title = f"REPLAY of {result['trials']} trials on {result['machines']} machines in name"
    table = Table("", "measured", title=f"{title}, {result['pace_s']:g} s an epoch")
    for name, text in LABELS.items():
        value = result["mlflow"][name] if name in result["mlflow"] else result[name]
        table.add_row(text, " to ".join(map(str, value)) if isinstance(value, list) else str(value))
    return table
