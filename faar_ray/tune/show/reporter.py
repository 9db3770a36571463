"""What a search reports its events to while it runs: a terminal, a log or a program."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Protocol, Self

from faar_ray.records import TrialResult
from faar_ray.tune.run.jobs import Job


class Reporter(Protocol):
    """Receives the events of one search; a context manager around it."""

    backlog: Callable[[], int]
    """Number of writes that are held back because MLflow is unavailable."""
    waiting: Callable[[], int]
    """Number of writes to MLflow that are still to be made."""

    def __enter__(self) -> Self: ...
    def __exit__(self, *_: object) -> None: ...

    def phase(self, text: str) -> None:
        """What the driver does now, outside trials; empty: nothing."""

    def machines(self, text: str, waiting: bool) -> None:
        """The search waits for machines (`waiting`), or they have come."""

    def note(self, text: str) -> None:
        """Something that a person must read."""

    def started(self, job: Job) -> None:
        """A job was submitted."""

    def epoch(self, job: Job, epoch: int, metrics: Mapping[str, float]) -> None:
        """A job finished an epoch, counted from 0."""

    def ended(self, job: Job, result: TrialResult) -> None:
        """A job ended."""
