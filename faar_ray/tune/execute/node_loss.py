"""What a lost machine leaves: trials that did nothing wrong, and placement groups that nobody will free.

Ray counts every dead actor as its trial's failure unless the machine announced its end; and it keeps the placement
group of a dead actor until the driver ends, so the workers' CPUs of a killed trial would be lost to the search.
"""

from __future__ import annotations

import socket
import time
from collections.abc import Mapping
from typing import Any, ClassVar

import ray
from ray._private import state
from ray.core.generated import gcs_pb2
from ray.exceptions import RayActorError, RayTaskError
from ray.tune import Callback
from ray.tune.experiment import Trial

from faar_ray.cluster.ray_cluster import free_groups_of_the_dead

MOST_NODES = 5
"""How many machines may die under one trial before that is held against the trial: it may be what kills them."""
SWEEP_S = 2.0
ANSWER_S = 2.0
TABLES: Any = gcs_pb2  # generated at import: no checker sees what is in it


class NodeLossTolerantTrial(Trial):
    """A trial of Ray Tune to which the death of its machine is no failure of its own.

    Of an actor that dies while the next trial is on its way into it Ray tells that trial twice: the first time it goes
    back to those that wait, the second time, because it waits, Ray would give it up whatever its retries. And it would
    count it among those on their way for ever, which never get an actor.
    """

    controller: ClassVar[Any] = None
    """Of Tune, as a scheduler sees it."""
    nodes_lost = 0
    told = 0
    """`id` of the last error."""

    def handle_error(self, exc: Any = None) -> None:
        """Note an error; Ray decides next whether the trial may go on."""
        self.controller._tune_controller._resetting_trials.discard(self)
        if self.told == id(exc) and self.status == Trial.PENDING:
            self.controller._set_trial_status(self, Trial.RUNNING)  # from where Ray puts it back once more
            return
        self.told = id(exc)
        super().handle_error(exc)
        cause = exc.as_instanceof_cause() if isinstance(exc, RayTaskError) else exc
        if self.nodes_lost < MOST_NODES and _died_with_its_node(cause):
            self.nodes_lost += 1
            self.run_metadata.num_failures -= 1


def _died_with_its_node(error: BaseException | None) -> bool:
    """Whether the machine of the actor that failed is gone: known to be, or its raylet does not answer.

    A connection that breaks tells of the loss at once, Ray's health check only 10 s and more later.
    """
    if not isinstance(error, RayActorError) or not error.actor_id:
        return False
    raw = state.state._connect_and_get_accessor().get_actor_info(ray.ActorID.from_hex(error.actor_id))
    if raw is None:
        return False
    home = TABLES.ActorTableData.FromString(raw).address.node_id.hex()
    return any(node["NodeID"] == home and not _raylet_reachable(node) for node in ray.nodes())


def _raylet_reachable(node: Mapping[str, Any]) -> bool:
    if not node["Alive"]:
        return False
    try:
        with socket.create_connection((node["NodeManagerAddress"], node["NodeManagerPort"]), timeout=ANSWER_S):
            return True
    except OSError:
        return False


class PlacementGroupReaper(Callback):
    """Frees placement groups of dead actors every `SWEEP_S` seconds at most: an actor that another one made (the
    controller of several workers) dies a little after the trial whose failure Ray Tune has noticed.
    """

    def __init__(self) -> None:
        self._next = 0.0

    def on_step_end(self, iteration: int, trials: list[Trial], **info: Any) -> None:
        """Look, if it is time."""
        if time.monotonic() >= self._next:
            self._next = time.monotonic() + SWEEP_S
            free_groups_of_the_dead()
