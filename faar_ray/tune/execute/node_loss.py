"""Recovery from a lost machine: its trials did not fail by themselves, and their placement groups must be freed.

Ray counts every dead actor as a failure of its trial unless the machine announced its end. Ray also keeps the placement
group of a dead actor until the driver ends, so the search would lose the CPUs of a killed trial's workers.
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
"""Machines that one trial may lose before the loss counts as its failure: the trial itself may crash them."""
REAP_INTERVAL_S = 2.0
CONNECT_TIMEOUT_S = 2.0


class NodeLossTolerantTrial(Trial):
    """A trial of Ray Tune for which the death of its machine does not count as a failure.

    If an actor dies while the next trial is about to reuse it, Ray reports the death to that trial twice. The first
    report sets the trial to PENDING. At the second report, Ray would fail a PENDING trial despite its retries and
    keep it on the list of trials that reuse an actor, where it never gets one.
    """

    controller: ClassVar[Any] = None
    """The trial runner that Ray Tune gives a scheduler."""
    nodes_lost = 0
    last_error_id = 0
    """`id` of the last error."""

    def handle_error(self, exc: Any = None) -> None:
        """Record an error; Ray then decides whether to retry the trial."""
        drop_from_resetting(self.controller, self)
        if self.last_error_id == id(exc) and self.status == Trial.PENDING:  # the second report
            set_trial_status(self.controller, self, Trial.RUNNING)  # Ray sets a RUNNING trial to PENDING
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
    """Frees placement groups of dead actors, at most every `REAP_INTERVAL_S` seconds.

    A check at each failure is not enough: an actor that another actor made (the controller of several workers) dies
    shortly after the failure of its trial.
    """

    def __init__(self) -> None:
        self._next = 0.0

    def on_step_end(self, iteration: int, trials: list[Trial], **info: Any) -> None:
        """Free placement groups if the interval has passed."""
        if time.monotonic() >= self._next:
            self._next = time.monotonic() + REAP_INTERVAL_S
            free_placement_groups_of_dead_actors()
