"""How far a cluster can grow: the machines that an autoscaler may add, from the cluster's file or from Ray."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import ray

from faar_ray.cluster.capacity import Capacity, Node, capacity, workers_on
from faar_ray.cluster.file import read_cluster
from faar_ray.cluster.node_types import ClusterFile, NodeType
from faar_ray.cluster.ray_cluster import Machine
from faar_ray.cluster.ray_internals import cluster_config
from faar_ray.config.run_sections import Resources
from faar_ray.errors import ConfigError

TYPE = "ray.io/node-group"
"""The label with a machine's node type; only machines that an autoscaler started have it."""
BOOTSTRAP = "~/ray_bootstrap_config.yaml"
"""Where `ray up` leaves the cluster's file on the head."""
UNBOUNDED_COUNT = 1000
"""Most machines of one type that are counted: Kubernetes has groups without a bound."""


def cluster_from_file(file: str | None) -> ClusterFile | None:
    """The cluster file that the space names.

    Raises:
        ConfigError: the file is missing, or has faults, each with its place in that file.
    """
    if file is None:
        return None
    path = Path(file).expanduser()
    try:
        return read_cluster(path)
    except ConfigError as fault:
        raise fault if path.is_file() else ConfigError(f"resources.cluster: {fault}") from None


def cluster_from_ray(machines: Sequence[Machine]) -> ClusterFile | None:
    """The connected cluster: from its autoscaler's report in Ray's GCS, which not every version makes, else from the
    file of `ray up` if this process runs on the head.
    """
    if (config := cluster_config()) is not None:
        return _reported(config)
    path = Path(BOOTSTRAP).expanduser()
    address = ray.util.get_node_ip_address()
    if path.is_file() and any(machine.head and machine.address == address for machine in machines):
        try:
            return read_cluster(path)
        except ConfigError:  # Ray added keys to the file; the user cannot mend it
            return None
    return None


def _reported(config: Any) -> ClusterFile:
    """The node types in the autoscaler's report, where a bound of -1 means none."""
    kinds = [
        NodeType(
            group.name,
            Node(group.resources.get("CPU", 0), group.resources.get("GPU", 0)),
            UNBOUNDED_COUNT if group.max_count < 0 else group.max_count,
            usd_per_hour=None,
            spot=False,
            head=False,
        )
        for group in config.node_group_configs
    ]
    return ClusterFile(Path(), "", "", sum(kind.most for kind in kinds), tuple(kinds))


def cluster_capacity(need: Resources, machines: Sequence[Machine], cluster: ClusterFile | None) -> Capacity:
    """How many trials run at once on these machines and those that may be added.

    Raises:
        ConfigError: not even one trial fits.
    """
    alive = [machine.node for machine in machines]
    more = [kind.node for kind in autoscalable_nodes(cluster, machines, need)]
    try:
        return capacity(need, alive, more, one="the one machine of the cluster")
    except ConfigError as fault:
        hint = "" if cluster else "; for a cluster that can grow, set resources.cluster to its file"
        raise ConfigError(f"{fault}{hint}") from None


def autoscalable_nodes(cluster: ClusterFile | None, machines: Sequence[Machine], need: Resources) -> list[NodeType]:
    """The type of each machine that may be added to those alive, those that hold most workers of a trial first.

    A live machine has the type on its label, else the first type with the same CPUs and GPUs.
    """
    if cluster is None:
        return []
    alive = Counter(type_of(machine, cluster.types) for machine in machines)
    workers_left = cluster.most_workers - sum(not machine.head for machine in machines)
    heads = [kind for kind in cluster.types if kind.head] if not any(machine.head for machine in machines) else []
    left = {kind.name: min(kind.most, UNBOUNDED_COUNT) - alive[kind.name] - (kind in heads) for kind in cluster.types}
    largest_first = sorted(cluster.types, key=lambda kind: workers_on(need, kind.node), reverse=True)
    added = [kind for kind in largest_first for _ in range(left[kind.name])]
    return heads + added[: max(0, workers_left)]


def type_of(machine: Machine, types: Sequence[NodeType]) -> str:
    """The name of a machine's node type; "" if it is none of these."""
    if (name := machine.labels.get(TYPE)) in [kind.name for kind in types]:
        return str(name)
    same_size = (kind.name for kind in types if kind.head == machine.head and kind.node == machine.node)
    return next(same_size, "")
