"""What is measured while a search runs: its search_state's calls, a trial's wait for its first result, memory, CPU."""

from __future__ import annotations

import os
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any

import psutil
from rich.console import Console

from faar_ray.bench.replay.replay import WRITE_MS
from faar_ray.records import TrialResult
from faar_ray.tune.run.jobs import Job
from faar_ray.tune.search_state import SearchState
from faar_ray.tune.show.progress import Progress
from faar_ray.tune.space.space import SearchSpace


@dataclass
class Clock:
    """Times in seconds, by trial id where a dict."""

    asked: dict[str, float] = field(default_factory=dict)
    """Of the search_state's `next_job` and `ended`: sampler, journal, watchers' queues."""
    computed: dict[str, float] = field(default_factory=dict)
    """The part of it that is CPU time of the thread; the rest is waiting for the disk or a core."""
    judged: float = 0.0
    """Of the search_state's `verdict` and `epoch`, all results together."""
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
        self._begun = (time.monotonic(), time.thread_time(), time.process_time())

    def lap(self) -> None:
        """A trial ended."""
        wall, thread, process = self._begun
        self.wall, self.thread = time.monotonic() - wall, time.thread_time() - thread
        self.process = time.process_time() - process

    def settled(self) -> None:
        """What the trials gave to be written is written."""
        self.process = time.process_time() - self._begun[2]

    def weigh(self) -> None:
        """The driver's memory at this moment."""
        self.memory.append((self.ended, round(psutil.Process(os.getpid()).memory_info().rss / 1e6, 1)))

    @contextmanager
    def of(self, trial_id: Callable[[], str]) -> Iterator[None]:
        """Add the time of the block to a trial's; its id is asked for afterwards, "" for none."""
        wall, cpu = time.perf_counter(), time.thread_time()
        yield
        wall, cpu = time.perf_counter() - wall, time.thread_time() - cpu
        if name := trial_id():
            self.asked[name] = self.asked.get(name, 0.0) + wall
            self.computed[name] = self.computed.get(name, 0.0) + cpu


class TimedBook(SearchState):
    """Measures what the search does for a trial and for a result."""

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

    def stop_reason(self, trial_id: str, epoch: int, metrics: Mapping[str, float]) -> str:
        """Judge a result."""
        started = time.perf_counter()
        said = super().stop_reason(trial_id, epoch, metrics)
        self.clock.judged += time.perf_counter() - started
        return said

    def epoch(self, trial_id: str, epoch: int, metrics: Mapping[str, float]) -> None:
        """Keep a result."""
        started = time.perf_counter()
        super().epoch(trial_id, epoch, metrics)
        self.clock.judged += time.perf_counter() - started


class Stopwatch(Progress):
    """Watches the search_state as the display does, and says how far it is."""

    def __init__(self, space: SearchSpace, clock: Clock, say: Callable[[str], None]) -> None:
        objectives = [objective.name for objective in space.objectives]
        super().__init__(Console(stderr=True), space.name, objectives, space.budget.trials, -1)
        self.clock, self.say_here = clock, say

    def started(self, job: Job) -> None:
        """Handed to Ray."""
        super().started(job)
        if not self.clock.handed:
            self.clock.weigh()
            self.clock.begin()
        self.clock.handed[job.trial_id] = time.monotonic()

    def epoch(self, job: Job, epoch: int, metrics: Mapping[str, float]) -> None:
        """A result came."""
        super().epoch(job, epoch, metrics)
        self.clock.waited.setdefault(job.trial_id, time.monotonic() - self.clock.handed[job.trial_id])
        self.clock.written.append(metrics[WRITE_MS])

    def ended(self, job: Job, result: TrialResult) -> None:
        """A trial ended."""
        super().ended(job, result)
        self.clock.ended += 1
        self.clock.lap()
        if self.clock.ended % max(1, self.trials // 10) == 0:
            self.clock.weigh()
            self.say_here(f"{self.clock.ended} of {self.trials} replayed trials")

    def phase(self, text: str) -> None:
        """The search says what it does next."""
        super().phase(text)
        if self.clock.ended and text:
            self.say_here(text)
