"""What a search costs beside training: real searcher, scheduler, Tune, MLflow, Parquet and report, replayed trials."""

from __future__ import annotations

import argparse
import functools
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from rich.table import Table

from faar_ray.bench.local_cluster import local_cluster
from faar_ray.bench.output import Notify, notifier, print_result, working_folder
from faar_ray.bench.replay.recorded import recorded
from faar_ray.bench.replay.replay import ReplayActor, replay_space
from faar_ray.bench.replay.stopwatch import Clock, Stopwatch, TimedSearchState
from faar_ray.report import build_report
from faar_ray.tune.propose.journal import open_journal
from faar_ray.tune.propose.proposer import Proposer
from faar_ray.tune.run.resolved_search import resolve
from faar_ray.tune.search import Parts, run_search

LAST = 100
GOALS = {
    f"ask + tell, p95 of the last {LAST} trials, ms": 50.0,
    "driver's thread, ms of CPU per result": 20.0,
    "next trial's first result, p95, s": 1.5,
    "report, s": 30.0,
    "beside training, %": 3.0,
}


def run(args: argparse.Namespace) -> None:
    """`bench search`: measure, and print."""
    with working_folder(args) as folder:
        result = measure_search(folder, args.trials, args.nodes, notifier())
    print_result(args, result, table_of(result))


def measure_search(folder: Path, trials: int, nodes: int, notify: Notify) -> dict[str, Any]:
    """Run a search of replayed trials on a local cluster and measure all that is not training.

    Args:
        folder: empty; the run, its MLflow database and a second report are left in it.
        trials: of the budget.
        nodes: of one CPU each, in name.
        notify: called with the progress.
    """
    space, clock = replay_space(folder, trials), Clock()
    with local_cluster(nodes) as cluster, Stopwatch(space, clock, notify) as progress:
        parts = Parts(search_state=functools.partial(TimedSearchState, clock=clock), actor=ReplayActor)
        outcome = run_search(resolve(space, cluster.address), progress, resume=False, parts=parts)
        clock.finish()

    run_folder, journal = outcome.place.path, outcome.place.path / "study.log"
    report_s = seconds_of(lambda: build_report(run_folder, folder / "report"))
    read_s = seconds_of(lambda: Proposer(space, open_journal(journal, space.name, space.study_objectives)).history())
    size = {"mb": round(journal.stat().st_size / 1e6, 2), "read_s": round(read_s, 2)}
    return figures(clock, nodes, report_s) | {"ended": outcome.counts, "journal": size}


def seconds_of(work: Callable[[], object]) -> float:
    """Wall time."""
    start = time.monotonic()
    work()
    return time.monotonic() - start


def figures(clock: Clock, nodes: int, report_s: float) -> dict[str, Any]:
    """The measurements as plain values."""
    results = len(clock.written)
    asked = [1000 * seconds for seconds in clock.asked.values()]
    later = [clock.waited[trial] for trial in list(clock.handed)[nodes:] if trial in clock.waited]
    cpu_ms, written_ms = 1000 * clock.process / results, sum(clock.written) / results
    measured = (
        quantile(asked[-LAST:], 95),
        1000 * clock.thread / results,
        quantile(later, 95),
        report_s,
        (cpu_ms + written_ms) / recorded().seconds() / 10,
    )
    return {
        "replay": True,
        "trials": clock.ended,
        "nodes": nodes,
        "results": results,
        "seconds": round(clock.wall, 1),
        "goals": [
            {"name": name, "goal": goal, "measured": round(value, 2), "met": value <= goal}
            for (name, goal), value in zip(GOALS.items(), measured, strict=True)
        ],
        "ask_tell_ms": {"p50": round(quantile(asked, 50), 2), "p95": round(quantile(asked, 95), 2)},
        "ask_tell_cpu_p95_ms": round(1000 * quantile(list(clock.computed.values())[-LAST:], 95), 2),
        "process_cpu_ms_per_result": round(cpu_ms, 1),
        "written_ms_per_result": round(written_ms, 1),
        "memory_mb": clock.memory,
        "memory_mb_per_100_trials": growth(clock.memory),
    }


def growth(memory: Sequence[tuple[int, float]]) -> float:
    """MB of the driver per 100 trials, from the second tenth of the trials on to the end of the last trial."""
    trials, mb = np.array(memory[2:-1] if len(memory) > 4 else memory, dtype=np.float64).T
    return round(float(100 * np.polyfit(trials, mb, 1)[0]), 1)


def quantile(values: Sequence[float], percent: float) -> float:
    """A percentile; nan of nothing."""
    return float(np.percentile(values, percent)) if len(values) else float("nan")


def table_of(result: dict[str, Any]) -> Table:
    """Goals, and what was measured beside them."""
    title = f"REPLAY of {result['trials']} trials ({result['results']} epochs) on {result['nodes']} nodes"
    table = Table("", "measured", "goal", "", title=title)
    for row in result["goals"]:
        table.add_row(row["name"], f"{row['measured']:.2f}", f"{row['goal']:g}", "" if row["met"] else "missed")
    for name, value in (
        ("ask + tell, CPU alone, p95, ms", result["ask_tell_cpu_p95_ms"]),
        ("driver's process, ms of CPU per result", result["process_cpu_ms_per_result"]),
        ("writing in the trial, ms per result", result["written_ms_per_result"]),
        ("driver's memory, MB per 100 trials", result["memory_mb_per_100_trials"]),
        ("journal, MB; seconds to read it", f"{result['journal']['mb']}; {result['journal']['read_s']}"),
    ):
        table.add_row(name, str(value), "", "")
    return table
