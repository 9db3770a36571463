"""What an hour of a trial and of a cluster costs, from the prices of its nodes."""

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
    """What a trial pays of the nodes that its workers fill."""

    usd_per_hour: float
    of: str
    """The node type."""


def dearest_share(need: Resources, types: Iterable[NodeType]) -> Share | None:
    """A trial's share of the dearest node type that can take its workers: no placement of them costs more.

    workers x price of a node / workers that fit on the node. The head, and what stands idle, is in no trial's share.
    None where no type takes them or one that does has no price.
    """
    able = [kind for kind in types if kind.most and workers_on(need, kind.node)]
    shares = [
        Share(need.workers * kind.usd_per_hour / workers_on(need, kind.node), kind.name)
        for kind in able
        if kind.usd_per_hour is not None
    ]
    return max(shares, key=lambda share: share.usd_per_hour) if shares and len(shares) == len(able) else None


def price_of(machine: Machine, types: Sequence[NodeType] = ()) -> float | None:
    """Of a live machine: its label's, else its type's; None where neither has one."""
    try:
        return float(machine.labels[PRICE])
    except (KeyError, ValueError):
        name = type_of(machine, types)
        return next((kind.usd_per_hour for kind in types if kind.name == name), None)


def idle_price(cluster: ClusterFile) -> float | None:
    """USD per hour of the head alone; None where it has no price."""
    return total(kind.usd_per_hour for kind in cluster.types if kind.head)


def top_price(cluster: ClusterFile) -> float | None:
    """USD per hour of the head and as many workers as there can be, the dearest ones; None where a price is missing."""
    heads = [kind.usd_per_hour for kind in cluster.types if kind.head]
    workers = [kind.usd_per_hour for kind in cluster.types for _ in range(min(kind.most, UNBOUNDED_COUNT) - kind.head)]
    workers.sort(key=lambda price: float("inf") if price is None else price, reverse=True)
    return total([*heads, *workers[: cluster.most_workers]])


def total(prices: Iterable[float | None]) -> float | None:
    """Their sum; None where one is missing, or all."""
    known = list(prices)
    return sum(price for price in known if price is not None) if known and None not in known else None
