"""A search space on a cluster, before anything starts there."""

from __future__ import annotations

from rich.console import Console

from faar_ray.errors import ConfigError
from faar_ray.train.ray_cluster import connected
from faar_ray.tune.cluster_plan import ClusterPlan
from faar_ray.tune.dry_run import show_plan
from faar_ray.tune.growth import cluster_of, told_by_ray
from faar_ray.tune.prices import priced
from faar_ray.tune.space import SearchSpace


def on_cluster(space: SearchSpace, address: str | None, *, dry_run: bool) -> SearchSpace:
    """The space with what its cluster's file says a trial costs.

    Raises:
        ConfigError: faults of that file, a trial without a price, or a search that would run here and not there.
    """
    cluster = cluster_of(space.resources)
    if address is None and not dry_run:
        where = "--address auto on its head, or HOST:PORT"
        raise ConfigError(f"resources.cluster: needs {where}: without, the search is this machine's alone")
    return priced(space, cluster)


def show_cluster_plan(console: Console, space: SearchSpace, address: str | None) -> None:
    """Print what would run on the cluster of the file, or on the one that answers at the address.

    Raises:
        ConfigError: no trial can ever start, or nothing answers.
    """
    cluster = cluster_of(space.resources)
    if address is None:
        plan = ClusterPlan(space, cluster, None)
    else:
        with connected(address, code=False) as machines:
            plan = ClusterPlan(space, cluster or told_by_ray(machines), machines)
    show_plan(console, space, plan.capacity(), plan)
