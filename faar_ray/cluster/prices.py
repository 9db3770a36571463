"""The price of an hour of a trial and of a cluster, from the prices of its nodes."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass

from faar_ray.cluster.autoscaling import UNBOUNDED_COUNT, type_of
from faar_ray.cluster.capacity import workers_on
from faar_ray.cluster.node_types import PRICE, ClusterFile, NodeType
from faar_ray.cluster.ray_cluster import Machine
from faar_ray.config.run_sections import Resources


@dataclass(frozen=True, slots=True)
class Share:
    """A trial's share of the price of the nodes that its workers run on."""

    usd_per_hour: float
    of: str
    """The node type."""


def dearest_share(need: Resources, types: Iterable[NodeType]) -> Share | None:
    """A trial's share of the dearest node type that its workers fit on: no placement costs more.

    workers x price of a node / workers that fit on the node, without the head and idle nodes.
    None if the workers fit on no type, or on one without a price.
    """
    suitable = [kind for kind in types if kind.most and workers_on(need, kind.node)]
    shares = [
        Share(need.workers * kind.usd_per_hour / workers_on(need, kind.node), kind.name)
        for kind in suitable
        if kind.usd_per_hour is not None
    ]
    return max(shares, key=lambda share: share.usd_per_hour) if shares and len(shares) == len(suitable) else None


def price_of(machine: Machine, types: Sequence[NodeType] = ()) -> float | None:
    """Price of a live machine, from its label, else from its type; None where neither has one."""
    try:
        return float(machine.labels[PRICE])
    except (KeyError, ValueError):
        name = type_of(machine, types)
        return next((kind.usd_per_hour for kind in types if kind.name == name), None)


def idle_price(cluster: ClusterFile) -> float | None:
    """USD per hour of the head alone; None without a price."""
    return total(kind.usd_per_hour for kind in cluster.types if kind.head)


def top_price(cluster: ClusterFile) -> float | None:
    """USD per hour of the head and the most workers possible, the dearest ones; None if a price is missing."""
    heads = [kind.usd_per_hour for kind in cluster.types if kind.head]
    workers = [kind.usd_per_hour for kind in cluster.types for _ in range(min(kind.most, UNBOUNDED_COUNT) - kind.head)]
    workers.sort(key=lambda price: float("inf") if price is None else price, reverse=True)
    return total([*heads, *workers[: cluster.most_workers]])


def total(prices: Iterable[float | None]) -> float | None:
    """The sum of the prices; None if one is missing or there are none."""
    known = list(prices)
    return sum(price for price in known if price is not None) if known and None not in known else None
