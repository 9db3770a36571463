"""Reports when a search has jobs and no machine for any: an autoscaler is at work, or the machines are lost."""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import Any

from ray.tune import Callback
from ray.tune.experiment import Trial

from faar_ray.cluster.capacity import format_need, format_supply
from faar_ray.cluster.ray_cluster import Machine, machines, placements
from faar_ray.config.run_sections import Resources
from faar_ray.tune.propose.budget import format_duration
from faar_ray.tune.search_state import SearchState

START_TIMEOUT_S = 15.0
"""Time that a trial may take to start on an available machine before the search counts as waiting."""
CHECK_INTERVAL_S = 2.0


class ResourceMonitor(Callback):
    """Checks every `CHECK_INTERVAL_S` seconds whether the search waits for machines, and notifies when that changes.

    Args:
        state: of the search; without an open job it does not wait.
        resources: of a trial.
        notify: gets a text, and whether the search waits.
        alive: gives the nodes of the cluster.
        now: clock in seconds.
    """

    def __init__(
        self,
        state: SearchState,
        resources: Resources,
        notify: Callable[[str, bool], None],
        alive: Callable[[], list[Machine]] = machines,
        now: Callable[[], float] = time.monotonic,
    ) -> None:
        self.state, self.resources, self.notify, self.alive, self.now = state, resources, notify, alive, now
        self._next, self._notified = 0.0, False
        self._since: float | None = None

    def on_step_end(self, iteration: int, trials: list[Trial], **info: Any) -> None:
        """Check, if it is time."""
        if self.now() >= self._next:
            self._next = self.now() + CHECK_INTERVAL_S
            self.update(self._has_machines(trials))

    def _has_machines(self, trials: list[Trial]) -> bool:
        one = self.resources.workers == 1
        if not self.state.running or (one and any(trial.status == Trial.RUNNING for trial in trials)):
            return True
        placed, waiting = placements()
        if not one:  # Tune counts the actor that leads the workers, not the workers' own machines
            self.state.set_placed(placed)
        return placed > 0 or not waiting

    def update(self, has_machines: bool) -> None:
        """Take note of whether the search has a machine, or needs none."""
        if has_machines:
            if self._since is not None and self._notified:
                waited = format_duration(self.now() - self._since)
                self.notify(f"machines are there after {waited}: {self._supply()}", False)
            self._since, self._notified = None, False
            return
        self._since = self.now() if self._since is None else self._since
        if not self._notified and self.now() - self._since >= START_TIMEOUT_S:
            self._notified = True
            self.notify(
                f"waiting for machines: {format_need(self.resources)}, the cluster has {self._supply()} now", True
            )

    def _supply(self) -> str:
        return format_supply([machine.node for machine in self.alive()])
