"""What a cluster can grow to: kinds of node, how many of each, what an hour of one costs."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from faar_ray.cluster.capacity import Node

PRICE = "usd-per-hour"
"""The node label that holds the price of one node, as text: labels of Ray and of Kubernetes are text."""
MARKET = "ray.io/market-type"
"""The node label by which Ray tells `spot` from `on-demand`."""


@dataclass(frozen=True, slots=True)
class NodeType:
    """One kind of node."""

    name: str
    node: Node
    """What Ray hands out of one such node: `CPU: 0` keeps trials off it, whatever the machine has."""
    most: int
    """How many of it there can be at once; the cluster's own bound may be lower."""
    usd_per_hour: float | None
    """Price of one node; None where the file does not say it."""
    spot: bool
    """The cloud may take it back at any time."""
    head: bool


@dataclass(frozen=True, slots=True)
class ClusterFile:
    """A cluster as its file describes it."""

    path: Path
    name: str
    provider: str
    """`aws`, `gcp`, `azure`, `local`, ...; `kuberay` for a RayCluster."""
    most_workers: int
    """Nodes beside the head, of all types together."""
    types: tuple[NodeType, ...]
    """Empty for `provider: local`, whose hosts tell what they have only when Ray runs on them."""
