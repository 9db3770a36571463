"""What a command of `faar_ray.tune` reads before anything starts: space, cluster file, capacity, location."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field

from faar_ray.cluster.capacity import Capacity, capacity, this_machine
from faar_ray.cluster.node_types import ClusterFile
from faar_ray.errors import ConfigError
from faar_ray.storage.run_location import RunLocation
from faar_ray.tune.run.run_folder import run_location_of
from faar_ray.tune.space.space import SearchSpace


@dataclass(frozen=True, slots=True)
class ResolvedSearch:
    """A search space and where it runs."""

    space: SearchSpace
    """With the price that the cluster file makes of a trial."""
    location: RunLocation
    """Of the run's folder."""
    address: str | None = None
    """Of the Ray cluster; None starts Ray on this machine."""
    cluster_file: ClusterFile | None = None
    """The file that `resources.cluster` names."""
    capacity: Capacity | None = None
    """How many trials run at once on this machine; None where they run on a cluster, which is asked once connected."""
    weights: Mapping[str, str] = field(default_factory=dict)
    """Digests of the weights that backbones begin with (`weights_of`)."""
    moved: Mapping[str, str] = field(default_factory=dict)
    """`backbone.checkpoint` as the run was started -> the same weights' file now."""


def resolve(space: SearchSpace, address: str | None = None, *, dry_run: bool = False) -> ResolvedSearch:
    """Read the cluster file, or count this machine.

    Raises:
        ConfigError: faults of the cluster file, a trial without a price, no machine that could take a trial, or a
            search for a cluster that would run on this machine.
    """
    location = run_location_of(space, space.name)
    if address is None and space.resources.cluster is None:
        return ResolvedSearch(space, location, capacity=capacity(space.resources, [this_machine()]))

    from faar_ray.cluster.autoscaling import cluster_from_file  # imports Ray
    from faar_ray.tune.run.pricing import priced

    cluster_file = cluster_from_file(space.resources.cluster)
    if address is None and not dry_run:
        where = "--address auto on its head, or HOST:PORT"
        raise ConfigError(f"resources.cluster: needs {where}: without, the search is this machine's alone")
    return ResolvedSearch(priced(space, cluster_file), location, address, cluster_file)
