"""The reporter of `--json`: one JSON object per event and line on stderr, for programs."""

from __future__ import annotations

import json
import time
from collections.abc import Callable, Mapping
from typing import IO, Any, Self

from faar_ray.records import TrialResult, json_metrics
from faar_ray.tune.run.jobs import Job


class JsonLines:
    """A `Reporter` that writes `{"s": seconds since the start, "event": ...}` with the event's own keys.

    Events: `phase`, `note` (`text`); `machines` (`text`, `waiting`); `started` (`role`, `seed`, `params`, `cached`);
    `epoch` (`epoch`, 0-based, and `metrics`); `ended` (`state`, `seconds`, `epochs`, `metrics`, `reason`). A metric
    that is not finite is null.
    """

    def __init__(self, stream: IO[str]) -> None:
        self.stream = stream
        self.begun = time.monotonic()
        self.backlog: Callable[[], int] = lambda: 0
        self.waiting: Callable[[], int] = lambda: 0

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        pass

    def phase(self, text: str) -> None:
        """What the driver does now, outside trials."""
        if text:
            self._emit("phase", text=text)

    def machines(self, text: str, waiting: bool) -> None:
        """The search waits for machines, or they have come."""
        self._emit("machines", text=text, waiting=waiting)

    def note(self, text: str) -> None:
        """Something that went wrong, or works again."""
        self._emit("note", text=text)

    def started(self, job: Job) -> None:
        """A job was submitted."""
        values = {"role": job.role, "seed": job.config.seed, "params": dict(job.params), "cached": job.cached}
        self._emit("started", trial_id=job.trial_id, **values)

    def epoch(self, job: Job, epoch: int, metrics: Mapping[str, float]) -> None:
        """A job finished an epoch."""
        self._emit("epoch", trial_id=job.trial_id, epoch=epoch, metrics=json_metrics(metrics))

    def ended(self, job: Job, result: TrialResult) -> None:
        """A job ended."""
        values = {"state": result.state, "seconds": result.seconds, "epochs": result.epochs, "reason": result.reason}
        self._emit("ended", trial_id=job.trial_id, **values, metrics=json_metrics(result.metrics))

    def _emit(self, event: str, **values: Any) -> None:
        line = {"s": round(time.monotonic() - self.begun, 1), "event": event, **values}
        print(json.dumps(line, allow_nan=False), file=self.stream, flush=True)
