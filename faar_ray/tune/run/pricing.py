"""The price of a trial on a cluster, from the cluster's file."""

from __future__ import annotations

from faar_ray.cluster.capacity import workers_on
from faar_ray.cluster.node_types import PRICE, ClusterFile
from faar_ray.cluster.prices import dearest_share
from faar_ray.config.run_sections import Resources
from faar_ray.errors import ConfigError
from faar_ray.tune.space.space import SearchSpace


def priced(space: SearchSpace, cluster: ClusterFile | None) -> SearchSpace:
    """The space with the price that its cluster makes of a trial, where it gives none itself.

    Raises:
        ConfigError: budget.usd is limited and a node type that takes trials has no price.
    """
    if cluster is None or space.resources.usd_per_hour is not None:
        return space
    share = dearest_share(space.resources, cluster.types)
    if share is None and space.budget.usd is not None:
        raise ConfigError(f"budget.usd: {_unpriced(space.resources, cluster)}, got {space.budget.usd:g}")
    price = None if share is None else share.usd_per_hour
    return space.model_copy(update={"resources": space.resources.model_copy(update={"usd_per_hour": price})})


def _unpriced(need: Resources, cluster: ClusterFile) -> str:
    lacking = [kind.name for kind in cluster.types if kind.usd_per_hour is None and workers_on(need, kind.node)]
    why = f"{', '.join(lacking)}: no label {PRICE}" if lacking else "no node type that takes its workers"
    return f"must be null where resources.usd_per_hour is null and {cluster.path} prices no trial ({why})"
