"""What a search costs beside training: real searcher, scheduler, Tune, MLflow, Parquet and report, replayed trials."""

from __future__ import annotations

import functools
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from faar_ray.bench.local_cluster import local_cluster
from faar_ray.bench.replay.recorded import recorded
from faar_ray.bench.replay.replay import ReplayActor, replay_space
from faar_ray.bench.replay.stopwatch import Clock, Stopwatch, TimedBook
from faar_ray.report import build_report
from faar_ray.tune.propose.journal import open_journal
from faar_ray.tune.propose.proposer import Proposer
from faar_ray.tune.run.resolved_search import resolve
from faar_ray.tune.search import Parts, run_search
from faar_ray.tune.space.space import SearchSpace

LAST = 100
GOALS = {
    f"ask + tell, p95 of the last {LAST} trials, ms": 50.0,
    "driver's thread, ms of CPU per result": 20.0,
    "next trial's first result, p95, s": 1.5,
    "report, s": 30.0,
    "beside training, %": 3.0,
}


def measure(folder: Path, trials: int, nodes: int, say: Callable[[str], None]) -> dict[str, Any]:
    """Run a search of replayed trials on a local cluster and measure all that is not training.

    Args:
        folder: empty; the run, its MLflow database and a second report are left in it.
        trials: of the budget.
        nodes: of one CPU each, in name.
        say: is told how far it is.
    """
    space, clock = replay_space(folder, trials), Clock()
    with local_cluster(nodes) as cluster, Stopwatch(space, clock, say) as progress:
        parts = Parts(search_state=functools.partial(TimedBook, clock=clock), actor=ReplayActor)
        found = run_search(resolve(space, cluster.address), progress, resume=False, parts=parts)
        clock.settled()
        clock.weigh()
    run = found.place.path
    report_s = seconds_of(lambda: build_report(run, folder / "report"))
    journal = {
        "mb": round((run / "study.log").stat().st_size / 1e6, 2),
        "read_s": round(seconds_of(lambda: taken_up(run / "study.log", space)), 2),
    }
    return facts(clock, nodes, report_s) | {"ended": found.counts, "journal": journal}


def seconds_of(work: Callable[[], object]) -> float:
    """Wall time."""
    started = time.monotonic()
    work()
    return time.monotonic() - started


def taken_up(journal: Path, space: SearchSpace) -> int:
    """Read a journal as `--resume` does; how many results are in it."""
    proposer = Proposer(space, open_journal(journal, space.name, space.objectives))
    proposer.history()
    return len(proposer.results())


def facts(clock: Clock, nodes: int, report_s: float) -> dict[str, Any]:
    """The measurements as plain values."""
    results = len(clock.written)
    asked, computed = ([1000 * value for value in values.values()] for values in (clock.asked, clock.computed))
    later = [clock.waited[trial] for trial in list(clock.handed)[nodes:] if trial in clock.waited]
    epoch_s = recorded().seconds()
    beside_ms = (1000 * clock.process + sum(clock.written)) / results
    values = (
        quantile(asked[-LAST:], 95),
        1000 * clock.thread / results,
        quantile(later, 95),
        report_s,
        beside_ms / epoch_s / 10,
    )
    return {
        "replay": True,
        "trials": clock.ended,
        "nodes": nodes,
        "results": results,
        "seconds": round(clock.wall, 1),
        "goals": [
            {"name": name, "goal": goal, "measured": round(value, 2), "met": value <= goal}
            for (name, goal), value in zip(GOALS.items(), values, strict=True)
        ],
        "ask_tell_ms": spread(asked) | {"last": spread(asked[-LAST:]), "last_cpu": spread(computed[-LAST:])},
        "driver": {
            "wall_ms_per_result": round(1000 * clock.wall / results, 1),
            "thread_cpu_ms_per_result": round(1000 * clock.thread / results, 1),
            "journal_and_verdict_ms_per_result": round(1000 * clock.judged / results, 1),
            "process_cpu_ms_per_result": round(1000 * clock.process / results, 1),
            "written_ms_per_result": round(sum(clock.written) / results, 1),
        },
        "next_trial_s": spread(later),
        "epoch_s": round(epoch_s, 2),
        "memory_mb": clock.memory,
        "memory_mb_per_100_trials": growth(clock.memory),
    }


def growth(memory: Sequence[tuple[int, float]]) -> float:
    """MB of the driver per 100 trials, from the second tenth of the trials on to the end of the last trial."""
    trials, mb = np.array(memory[2:-1] if len(memory) > 4 else memory, dtype=np.float64).T
    return round(float(100 * np.polyfit(trials, mb, 1)[0]), 1)


def spread(values: Sequence[float]) -> dict[str, float]:
    """Median and 95th percentile."""
    return {"p50": round(quantile(values, 50), 2), "p95": round(quantile(values, 95), 2)}


def quantile(values: Sequence[float], percent: float) -> float:
    """A percentile; nan of nothing."""
    return float(np.percentile(values, percent)) if len(values) else float("nan")
