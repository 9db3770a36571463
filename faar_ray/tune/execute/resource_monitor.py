"""A search that has jobs and no machine for any: an autoscaler is at work, or the machines are lost."""

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

PATIENCE_S = 15.0
"""What the start of a trial on a machine that is there may take before anything is said."""
LOOK_S = 2.0


class ResourceMonitor(Callback):
    """Looks every `LOOK_S` seconds whether the search has asked for machines and got none; says so when that changes.

    Args:
        search_state: of the search; without an open job nobody waits.
        need: of a trial.
        say: is told in words, and whether the search waits.
        alive: the nodes of the cluster.
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
        """Look, if it is time."""
        if self.now() >= self._next:
            self._next = self.now() + LOOK_S
            self.look(self._well(trials))

    def _well(self, trials: list[Trial]) -> bool:
        one = self.resources.workers == 1
        if not self.state.running or (one and any(trial.status == Trial.RUNNING for trial in trials)):
            return True
        placed, waiting = placements()
        if not one:  # Tune knows of the actor that leads the workers, not of theirs
            self.state.set_placed(placed)
        return placed > 0 or not waiting

    def look(self, well: bool) -> None:
        """Take note of whether there is a machine, or nobody who would want one."""
        if well:
            if self._since is not None and self._notified:
                waited = format_duration(self.now() - self._since)
                self.notify(f"machines are there after {waited}: {self._supply()}", False)
            self._since, self._notified = None, False
            return
        self._since = self.now() if self._since is None else self._since
        if not self._notified and self.now() - self._since >= PATIENCE_S:
            self._notified = True
            self.notify(
                f"waiting for machines: {format_need(self.resources)}, the cluster has {self._supply()} now", True
            )

    def _supply(self) -> str:
        return format_supply([machine.node for machine in self.alive()])
