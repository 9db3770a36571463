"""A cluster's node types: how many nodes each can have and what an hour of one costs."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from faar_ray.cluster.capacity import Node

PRICE = "usd-per-hour"
"""The node label with the price of one node, as text: Ray and Kubernetes have no other labels."""
MARKET = "ray.io/market-type"
"""Ray's node label for `spot` or `on-demand`."""


@dataclass(frozen=True, slots=True)
class NodeType:
    """One kind of node."""

    name: str
    node: Node
    """What Ray schedules on one such node; no trial runs on it with `CPU: 0`."""
    most: int
    """Most nodes of this type at once; the bound of the whole cluster may be lower."""
    usd_per_hour: float | None
    """Price of one node; None where the file has none."""
    spot: bool
    """Whether the cloud may end it at any time."""
    head: bool


@dataclass(frozen=True, slots=True)
class ClusterFile:
    """The contents of a cluster's file."""

    path: Path
    name: str
    provider: str
    """`aws`, `gcp`, `azure`, `local`, ...; `kuberay` for a RayCluster."""
    most_workers: int
    """Most nodes of all types together, without the head."""
    types: tuple[NodeType, ...]
    """Empty for `provider: local`: the hosts' resources are unknown until Ray runs on them."""
