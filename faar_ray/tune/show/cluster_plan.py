"""A dry run's text about a cluster: its nodes, how many trials fit, the price of an hour."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

from rich.console import Console
from rich.table import Table
from rich.text import Text

from faar_ray.cluster.autoscaling import TYPE, cluster_capacity, type_of
from faar_ray.cluster.capacity import Capacity
from faar_ray.cluster.node_types import MARKET, PRICE, ClusterFile, NodeType
from faar_ray.cluster.prices import dearest_share, idle_price, price_of, top_price, total
from faar_ray.cluster.ray_cluster import Machine
from faar_ray.tune.space.space import SearchSpace

HIDDEN_LABELS = (TYPE, MARKET, PRICE, "ray.io/node-id")
"""Labels that are left out of the column of labels."""


@dataclass(frozen=True, slots=True)
class ClusterPlan:
    """A search on a cluster.

    Args:
        space: the search space, priced.
        cluster: the cluster's file, or Ray's description of it; None without either.
        machines: the nodes alive; None without a connection.
    """

    space: SearchSpace
    cluster: ClusterFile | None
    machines: Sequence[Machine] | None

    @property
    def types(self) -> tuple[NodeType, ...]:
        """Node types of the file; empty for hosts whose resources are unknown until Ray runs on them."""
        return self.cluster.types if self.cluster else ()

    def capacity(self) -> Capacity | None:
        """How many trials fit; None if that is not known yet.

        Raises:
            ConfigError: not even one trial fits.
        """
        known = self.types or self.machines is not None
        return cluster_capacity(self.space.resources, self.machines or (), self.cluster) if known else None

    def now(self) -> float | None:
        """USD per hour of the nodes alive, or without a connection of the head; None if a price is missing."""
        if self.machines is None:
            return idle_price(self.cluster) if self.cluster else None
        return total(price_of(machine, self.types) for machine in self.machines)

    def at_most(self) -> float | None:
        """USD per hour of the whole cluster at its largest; None if a price is missing."""
        if self.cluster is None or not self.types:
            return self.now()
        others = [price_of(machine) for machine in self.machines or () if not type_of(machine, self.types)]
        return total([top_price(self.cluster), *others])

    def show(self, console: Console) -> None:
        """Print the nodes and their prices."""
        console.print(Text(f"\n# {self._title()}"), soft_wrap=True)
        if self.types or self.machines:
            console.print(self._table())
        console.print(Text("\n".join(self._lines())), soft_wrap=True)

    def _title(self) -> str:
        file = self.cluster if self.cluster and self.cluster.name else None
        named = f"{file.name} on {file.provider}, from {file.path}" if file else ""
        if self.machines is None:
            return f"the cluster {named}"
        alive = f"the running cluster, {len(self.machines)} node{'s' if len(self.machines) != 1 else ''} alive"
        return f"{alive}; {named}" if named else alive

    def _table(self) -> Table:
        live = self.machines is not None
        table = Table(box=None, padding=(0, 2, 0, 0), header_style="dim")
        table.add_column("node type")
        for title in ("CPUs", "GPUs", *(["now"] if live else []), "at most"):
            table.add_column(title, justify="right")
        table.add_column("market")
        table.add_column("USD/h", justify="right")
        if live:
            table.add_column("labels")
        alive = Counter(self._kind(machine) for machine in self.machines or ())
        for kind in (*self.types, *(kind for kind in alive if kind not in self.types)):
            most = str(kind.most) if kind in self.types else "" if self.types else "?"
            price = "?" if kind.usd_per_hour is None else f"{kind.usd_per_hour:.4g}"
            numbers = [f"{kind.node.cpus:g}", f"{kind.node.gpus:g}", *([str(alive[kind])] if live else []), most]
            market = "spot" if kind.spot else "on-demand"
            table.add_row(kind.name, *numbers, market, price, *([self._labels(kind)] if live else []))
        return table

    def _kind(self, machine: Machine) -> NodeType:
        """Type of a live machine; a new type for a machine of no known type."""
        known = {kind.name: kind for kind in self.types}
        if name := type_of(machine, self.types):
            return known[name]
        name = machine.labels.get(TYPE, "head" if machine.head else "worker")
        spot = machine.labels.get(MARKET) == "spot"
        return NodeType(name, machine.node, 0, price_of(machine), spot, machine.head)

    def _labels(self, kind: NodeType) -> str:
        of_kind = [machine.labels for machine in self.machines or () if self._kind(machine) == kind]
        texts = {f"{key}={value}" for labels in of_kind for key, value in labels.items() if key not in HIDDEN_LABELS}
        return " ".join(sorted(texts))

    def _lines(self) -> Iterator[str]:
        if self.cluster and self.types:
            yield f"at most {self.cluster.most_workers} workers of all types together"
        elif self.machines is None:
            yield "the hosts' resources are unknown until Ray runs on them: connect with --address HOST:PORT"
        else:
            yield "the largest size of the cluster is unknown: set resources.cluster to its file"

        if self.types or self.machines:
            when = "with the head alone" if self.machines is None else "now"
            now, most = self.now(), self.at_most()
            if now is None or most is None:
                yield f"cost: unknown, a node has no label {PRICE}"
            else:
                yield f"cost: {now:.4g} USD/h {when}, at most {most:.4g} USD/h"

        yield from self._price()

    def _price(self) -> Iterator[str]:
        """The price of an hour of a trial, as budget.usd counts it."""
        price, share = self.space.resources.usd_per_hour, dearest_share(self.space.resources, self.types)
        if price is not None and share and share.usd_per_hour == price:
            whole = f"its share of a full {share.of}, the dearest node that it fits on"
            yield f"a trial: {price:.4g} USD/h, {whole}; the head and idle nodes cost extra"
        elif price is not None:
            yield f"a trial: {price:.4g} USD/h, from resources.usd_per_hour"
