"""What a search costs beside training: real searcher, scheduler, Tune, MLflow, Parquet and report, replayed trials."""

from __future__ import annotations

import functools
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import optuna
import psutil
from rich.console import Console

from faar_ray.bench.fault_cluster import local_cluster
from faar_ray.bench.recorded import recorded
from faar_ray.bench.replay import WRITE_MS, ReplayActor, replay_space
from faar_ray.records import TrialResult
from faar_ray.report import build_report
from faar_ray.tune.jobs import Job
from faar_ray.tune.progress import Progress
from faar_ray.tune.proposer import Proposer
from faar_ray.tune.runner import Parts, run_search
from faar_ray.tune.space import SearchSpace

GOALS = {
    "ask + tell, p95 of the last 100 trials, ms": 50.0,
    "driver, ms per result": 20.0,
    "next trial's first result, p95, s": 1.5,
    "report, s": 30.0,
    "beside training, %": 3.0,
}
LAST = 100


@dataclass
class Clock:
    """What was measured while the search ran."""

    asked: dict[str, float] = field(default_factory=dict)
    """Seconds of the ask and the tell of a trial."""
    handed: dict[str, float] = field(default_factory=dict)
    waited: dict[str, float] = field(default_factory=dict)
    """Seconds from a trial's hand-over to Ray to its first result in the driver."""
    written: list[float] = field(default_factory=list)
    """ms that a replaying trial wrote, by result."""
    memory: list[tuple[int, float]] = field(default_factory=list)
    """(trials that ended, MB of the driver)"""
    ended: int = 0
    begun: tuple[float, float, float] | None = None
    over: tuple[float, float, float] = (0.0, 0.0, 0.0)

    def now(self) -> None:
        """Wall, this thread's and the process's CPU seconds so far."""
        self.over = (time.monotonic(), time.thread_time(), time.process_time())
        self.begun = self.begun or self.over

    def took(self) -> tuple[float, float, float]:
        """Seconds from the first hand-over to the last end: wall, CPU of the driver's thread, CPU of the process."""
        assert self.begun is not None
        wall, thread, process = (after - before for before, after in zip(self.begun, self.over, strict=True))
        return wall, thread, process


class TimedProposer(Proposer):
    """Measures its asks and tells."""

    def __init__(self, space: SearchSpace, study: optuna.Study, *, clock: Clock) -> None:
        super().__init__(space, study)
        self.clock = clock

    def next_job(self) -> Job | None:
        """Ask."""
        started = time.perf_counter()
        job = super().next_job()
        if job is not None:
            self.clock.asked[job.trial_id] = time.perf_counter() - started
        return job

    def tell(self, result: TrialResult, number: int) -> TrialResult:
        """Tell."""
        started = time.perf_counter()
        told = super().tell(result, number)
        self.clock.asked[result.trial_id] += time.perf_counter() - started
        return told


class Stopwatch(Progress):
    """Watches the book; says how far it is."""

    def __init__(self, space: SearchSpace, clock: Clock, say: Callable[[str], None]) -> None:
        super().__init__(Console(stderr=True), space.name, ["delta_m"], space.budget.trials, -1)
        self.clock, self.say_here = clock, say

    def started(self, job: Job) -> None:
        """Handed to Ray."""
        super().started(job)
        self.clock.handed[job.trial_id] = time.monotonic()
        if self.clock.begun is None:
            self._weigh()
        self.clock.now()

    def epoch(self, job: Job, epoch: int, metrics: Mapping[str, float]) -> None:
        """A result came."""
        super().epoch(job, epoch, metrics)
        self.clock.waited.setdefault(job.trial_id, time.monotonic() - self.clock.handed[job.trial_id])
        self.clock.written.append(metrics[WRITE_MS])

    def ended(self, job: Job, result: TrialResult) -> None:
        """A trial ended."""
        super().ended(job, result)
        self.clock.ended += 1
        self.clock.now()
        if self.clock.ended % max(1, self.trials // 10) == 0:
            self._weigh()
            self.say_here(f"{self.clock.ended} of {self.trials} replayed trials")

    def _weigh(self) -> None:
        self.clock.memory.append((self.clock.ended, round(psutil.Process().memory_info().rss / 1e6, 1)))


def measure(folder: Path, trials: int, nodes: int, say: Callable[[str], None]) -> dict[str, Any]:
    """Run a search of replayed trials on a local cluster and measure all that is not training."""
    space, clock = replay_space(folder, trials), Clock()
    started = time.monotonic()
    with local_cluster(nodes) as cluster, Stopwatch(space, clock, say) as progress:
        parts = Parts(proposer=functools.partial(TimedProposer, clock=clock), actor=ReplayActor)
        found = run_search(space, space.name, progress, resume=False, address=cluster.address, parts=parts)
    seconds = time.monotonic() - started
    reporting = time.monotonic()
    build_report(found.place.path, folder / "report")
    report_s = time.monotonic() - reporting
    return facts(clock, nodes, seconds, report_s) | {"ended": found.counts}


def facts(clock: Clock, nodes: int, seconds: float, report_s: float) -> dict[str, Any]:
    """The measurements as plain values."""
    wall, thread, process = clock.took()
    results = len(clock.written)
    asked = [1000 * value for value in clock.asked.values()]
    later = list(clock.waited.values())[nodes:]  # the first of every node starts a process
    beside = (1000 * process + sum(clock.written)) / results
    epoch_s = recorded().seconds()
    values = (
        quantile(asked[-LAST:], 95),
        1000 * thread / results,
        quantile(later, 95),
        report_s,
        beside / epoch_s / 10,
    )
    return {
        "replay": True,
        "trials": clock.ended,
        "nodes": nodes,
        "results": results,
        "seconds": round(seconds, 1),
        "goals": [
            {"name": name, "goal": goal, "measured": round(value, 2), "met": value <= goal}
            for (name, goal), value in zip(GOALS.items(), values, strict=True)
        ],
        "ask_tell_ms": {"p50": round(quantile(asked, 50), 1), "p95": round(quantile(asked, 95), 1)},
        "driver": {
            "wall_ms_per_result": round(1000 * wall / results, 1),
            "thread_cpu_ms_per_result": round(1000 * thread / results, 1),
            "process_cpu_ms_per_result": round(1000 * process / results, 1),
            "written_ms_per_result": round(sum(clock.written) / results, 1),
        },
        "next_trial_s": {"p50": round(quantile(later, 50), 2), "p95": round(quantile(later, 95), 2)},
        "epoch_s": round(epoch_s, 2),
        "memory_mb": clock.memory,
    }


def quantile(values: Sequence[float], percent: float) -> float:
    """A percentile; nan of nothing."""
    return float(np.percentile(values, percent)) if values else float("nan")
