"""What a lost machine leaves: trials that did not fail by themselves, and placement groups that nobody frees.

Ray counts every dead actor as its trial's failure unless the machine announced its end. And it keeps the placement
group of a dead actor until the driver ends, so the workers' CPUs of a killed trial would be lost to the search.
"""

from __future__ import annotations

import socket
import time
from collections.abc import Mapping
from typing import Any, ClassVar

import ray
from ray.exceptions import RayActorError, RayTaskError
from ray.tune import Callback
from ray.tune.experiment import Trial

from faar_ray.cluster.ray_internals import (
    drop_from_resetting,
    free_placement_groups_of_dead_actors,
    node_of_actor,
    set_trial_status,
)

MAX_NODES_LOST = 5
"""Machines that may die under one trial before it counts as the trial's failure: it may be what kills them."""
REAP_INTERVAL_S = 2.0
CONNECT_TIMEOUT_S = 2.0


class NodeLossTolerantTrial(Trial):
    """A trial of Ray Tune for which the death of its machine does not count as a failure.

    Where an actor dies while the next trial is moving into it, Ray reports the death to that trial twice. At the first
    report the trial goes back to PENDING. At the second one, because it is PENDING, Ray would give it up whatever its
    retries, and would keep it on the list of trials that move into an actor, which never get one.
    """

    controller: ClassVar[Any] = None
    """Of Tune, as a scheduler sees it."""
    nodes_lost = 0
    last_error_id = 0
    """`id` of the last error."""

    def handle_error(self, exc: Any = None) -> None:
        """Note an error; Ray decides next whether the trial may go on."""
        drop_from_resetting(self.controller, self)
        if self.last_error_id == id(exc) and self.status == Trial.PENDING:  # the second report
            set_trial_status(self.controller, self, Trial.RUNNING)  # from where Ray puts it back to PENDING
            return

        self.last_error_id = id(exc)
        super().handle_error(exc)
        cause = exc.as_instanceof_cause() if isinstance(exc, RayTaskError) else exc
        if self.nodes_lost < MAX_NODES_LOST and _died_with_its_node(cause):
            self.nodes_lost += 1
            self.run_metadata.num_failures -= 1


def _died_with_its_node(error: BaseException | None) -> bool:
    """Whether the machine of the actor that failed is dead, or its raylet unreachable.

    A broken connection reports the loss at once, Ray's health check only 10 s and more later.
    """
    if not isinstance(error, RayActorError) or not error.actor_id:
        return False
    node_id = node_of_actor(error.actor_id)
    return any(node["NodeID"] == node_id and not _raylet_reachable(node) for node in ray.nodes())


def _raylet_reachable(node: Mapping[str, Any]) -> bool:
    if not node["Alive"]:
        return False
    try:
        with socket.create_connection((node["NodeManagerAddress"], node["NodeManagerPort"]), timeout=CONNECT_TIMEOUT_S):
            return True
    except OSError:
        return False


class PlacementGroupReaper(Callback):
    """Frees placement groups of dead actors, every `REAP_INTERVAL_S` seconds at most.

    Not only when a trial fails: an actor that another actor made (the controller of several workers) dies a little
    after the trial whose failure Ray Tune has noticed.
    """

    def __init__(self) -> None:
        self._next = 0.0

    def on_step_end(self, iteration: int, trials: list[Trial], **info: Any) -> None:
        """Free them, if it is time."""
        if time.monotonic() >= self._next:
            self._next = time.monotonic() + REAP_INTERVAL_S
            free_placement_groups_of_dead_actors()
