"""Several Ray nodes on this machine, to lose some of them."""

from __future__ import annotations

import contextlib
import logging
from collections.abc import Iterator
from typing import Any

import psutil
from ray.cluster_utils import Cluster

from faar_ray.cluster.ray_cluster import QUIET, set_defaults
from faar_ray.cluster.ray_folder import use_short_ray_folder

STORE = 80_000_000
"""Bytes of a node's object store; only small dicts travel."""
HEALTH = {
    "RAY_health_check_initial_delay_ms": "1000",
    "RAY_health_check_period_ms": "1000",
    "RAY_health_check_timeout_ms": "10000",
    "RAY_health_check_failure_threshold": "3",
}
"""A dead node refuses connections and is known to be dead after about 3 s instead of Ray's 12; a busy one has 30 s."""


class LocalCluster:
    """A head without CPUs, and nodes.

    Args:
        nodes: how many.
        cpus: of each node, in name.
    """

    def __init__(self, nodes: int, cpus: int = 1) -> None:
        set_defaults(QUIET | HEALTH)
        use_short_ray_folder()
        logging.getLogger("ray").setLevel(logging.CRITICAL)
        self._cluster = Cluster()
        self._cluster.add_node(num_cpus=0, object_store_memory=STORE, include_dashboard=False)
        self._cpus = cpus
        self._nodes: list[Any] = [self._add() for _ in range(nodes)]

    @property
    def address(self) -> str:
        """What `--address` takes."""
        return str(self._cluster.address)

    def raylets(self) -> list[psutil.Process]:
        """Of the nodes that may die, not of the head."""
        raylets = []
        for node in self._nodes:
            with contextlib.suppress(psutil.NoSuchProcess):
                raylets.append(psutil.Process(node.all_processes["raylet"][0].process.pid))
        return [raylet for raylet in raylets if raylet.status() != psutil.STATUS_ZOMBIE]

    def workers(self) -> list[psutil.Process]:
        """Everything under the raylets."""
        processes: list[psutil.Process] = []
        for raylet in self.raylets():
            with contextlib.suppress(psutil.NoSuchProcess):
                processes += raylet.children(recursive=True)
        return processes

    def replace_dead(self) -> None:
        """Put a new node in the place of each dead one."""
        alive = {raylet.pid for raylet in self.raylets()}
        for node in list(self._nodes):
            if node.all_processes["raylet"][0].process.pid not in alive:
                self._cluster.remove_node(node, allow_graceful=False)
                self._nodes[self._nodes.index(node)] = self._add()

    def close(self) -> None:
        """End all of it."""
        self._cluster.shutdown()

    def _add(self) -> Any:
        return self._cluster.add_node(num_cpus=self._cpus, object_store_memory=STORE)


@contextlib.contextmanager
def local_cluster(nodes: int, cpus: int = 1) -> Iterator[LocalCluster]:
    """Start it, and end it."""
    cluster = LocalCluster(nodes, cpus)
    try:
        yield cluster
    finally:
        cluster.close()
