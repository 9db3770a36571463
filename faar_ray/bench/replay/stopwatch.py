"""What is measured while a search runs: calls of its state, a trial's wait for its first result, memory, CPU."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any

import psutil
from rich.console import Console

from faar_ray.bench.output import Notify
from faar_ray.bench.replay.paced import WRITE_MS
from faar_ray.records import TrialResult
from faar_ray.tune.run.jobs import Job
from faar_ray.tune.search_state import SearchState
from faar_ray.tune.show.progress import Progress
from faar_ray.tune.space.space import SearchSpace


@dataclass
class Clock:
    """Times in seconds, by trial id where a dict."""

    asked: dict[str, float] = field(default_factory=dict)
    """Of `next_job` and `ended`: sampler, journal, watchers."""
    computed: dict[str, float] = field(default_factory=dict)
    """The part of it that is CPU time of the thread; the rest waits for the disk or a core."""
    handed: dict[str, float] = field(default_factory=dict)
    """When a trial was handed to Ray."""
    waited: dict[str, float] = field(default_factory=dict)
    """From there to its first result in the driver."""
    written: list[float] = field(default_factory=list)
    """ms that a replaying trial wrote, by result."""
    memory: list[tuple[int, float]] = field(default_factory=list)
    """(trials that ended, MB of the driver)"""
    ended: int = 0
    wall: float = 0.0
    """From the first hand-over to the last end."""
    thread: float = 0.0
    """CPU of the driver's thread between the two."""
    process: float = 0.0
    """CPU of the driver's process from the first hand-over until everything is written."""

    def begin(self) -> None:
        """The first trial is handed over."""
        self.weigh()
        self._start = (time.monotonic(), time.thread_time(), time.process_time())

    def lap(self) -> None:
        """A trial ended."""
        wall, thread, _ = self._start
        self.ended += 1
        self.wall, self.thread = time.monotonic() - wall, time.thread_time() - thread

    def finish(self) -> None:
        """Everything is written."""
        self.process = time.process_time() - self._start[2]
        self.weigh()

    def weigh(self) -> None:
        """Note the driver's memory."""
        self.memory.append((self.ended, round(psutil.Process().memory_info().rss / 1e6, 1)))

    @contextmanager
    def of(self, trial_id: Callable[[], str]) -> Iterator[None]:
        """Add the time of the block to a trial's; its id is asked for afterwards, "" for none."""
        wall, cpu = time.perf_counter(), time.thread_time()
        yield
        wall, cpu = time.perf_counter() - wall, time.thread_time() - cpu
        if name := trial_id():
            self.asked[name] = self.asked.get(name, 0.0) + wall
            self.computed[name] = self.computed.get(name, 0.0) + cpu


class TimedSearchState(SearchState):
    """Measures what the search does for a trial."""

    def __init__(self, *args: Any, clock: Clock, **options: Any) -> None:
        self.clock = clock
        super().__init__(*args, **options)

    def next_job(self) -> Job | None:
        """Ask."""
        job: Job | None = None
        with self.clock.of(lambda: job.trial_id if job else ""):
            job = super().next_job()
        return job

    def ended(self, trial_id: str) -> None:
        """Tell."""
        with self.clock.of(lambda: trial_id):
            super().ended(trial_id)


class Stopwatch(Progress):
    """Watches the search as the display does, and reports the progress."""

    def __init__(self, space: SearchSpace, clock: Clock, notify: Notify) -> None:
        objectives = [objective.name for objective in space.objectives]
        super().__init__(Console(stderr=True), space.name, objectives, space.budget.trials, -1)
        self.clock, self.notify = clock, notify

    def started(self, job: Job) -> None:
        """Handed to Ray."""
        super().started(job)
        if not self.clock.handed:
            self.clock.begin()
        self.clock.handed[job.trial_id] = time.monotonic()

    def epoch(self, job: Job, epoch: int, metrics: Any) -> None:
        """A result came."""
        super().epoch(job, epoch, metrics)
        self.clock.waited.setdefault(job.trial_id, time.monotonic() - self.clock.handed[job.trial_id])
        self.clock.written.append(metrics[WRITE_MS])

    def ended(self, job: Job, result: TrialResult) -> None:
        """A trial ended."""
        super().ended(job, result)
        self.clock.lap()
        if self.clock.ended % max(1, self.trials // 10) == 0:
            self.clock.weigh()
            self.notify(f"{self.clock.ended} of {self.trials} replayed trials")
