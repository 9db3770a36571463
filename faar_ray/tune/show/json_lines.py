"""What a program reads while a search runs with `--json`: one JSON object a line on stderr, for each event."""

from __future__ import annotations

import json
import time
from collections.abc import Mapping
from typing import Any

from faar_ray.records import TrialResult
from faar_ray.tune.run.jobs import Job
from faar_ray.tune.show.progress import Progress


class JsonLines(Progress):
    """`{"s": seconds since the start, "event": ...}` with `text`, or the trial and what it did.

    Events: `phase`, `note` (`text`); `machines` (`text`, `waiting`); `started` (`role`, `seed`, `params`, `cached`);
    `epoch` (`epoch`, 0-based, and `metrics`); `ended` (`state`, `seconds`, `epochs`, `metrics`, `reason`).
    """

    def phase(self, text: str) -> None:
        """What is done when no trial does it."""
        if text:
            self._emit("phase", text=text)

    def machines(self, text: str, waiting: bool) -> None:
        """The search waits for machines, or they came."""
        self._emit("machines", text=text, waiting=waiting)

    def note(self, text: str) -> None:
        """Something that went wrong, or is well again."""
        self._emit("note", text=text)

    def started(self, job: Job) -> None:
        """A job was handed out."""
        told = {"role": job.role, "seed": job.config.seed, "params": dict(job.params), "cached": job.cached}
        self._emit("started", trial_id=job.trial_id, **told)

    def epoch(self, job: Job, epoch: int, metrics: Mapping[str, float]) -> None:
        """A job finished an epoch."""
        self._emit("epoch", trial_id=job.trial_id, epoch=epoch, metrics=dict(metrics))

    def ended(self, job: Job, result: TrialResult) -> None:
        """A job ended."""
        told = {"state": result.state, "seconds": result.seconds, "epochs": result.epochs, "reason": result.reason}
        self._emit("ended", trial_id=job.trial_id, **told, metrics=dict(result.metrics))

    def _emit(self, event: str, **told: Any) -> None:
        line = {"s": round(time.monotonic() - self.begun, 1), "event": event, **told}
        print(json.dumps(line), file=self.console.file, flush=True)
