"""The price that a cluster file gives a trial of a search."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import pytest

from faar_ray.cluster.capacity import Node
from faar_ray.cluster.node_types import ClusterFile, NodeType
from faar_ray.errors import ConfigError
from faar_ray.tune.run.pricing import priced
from faar_ray.tune.space.space import SearchSpace

HEAD = NodeType("head", Node(0, 0), 1, 0.2, False, True)
SPOT = NodeType("spot", Node(16, 2), 4, 0.8, True, False)
SURE = NodeType("sure", Node(16, 1), 1, 1.2, False, False)
CLUSTER = ClusterFile(Path("c.yaml"), "c", "aws", 4, (HEAD, SPOT, SURE))


def test_the_clusters_price_counts_where_the_space_gives_none(space: Callable[..., SearchSpace]) -> None:
    given = space(resources={"usd_per_hour": 7.0, "cluster": "c.yaml"}, budget={"usd": 10.0})
    assert priced(given, CLUSTER).resources.usd_per_hour == 7.0
    left = space(resources={"gpus_per_worker": 1.0, "cluster": "c.yaml"}, budget={"usd": 10.0})
    assert priced(left, CLUSTER).resources.usd_per_hour == 1.2


def test_a_budget_of_usd_without_a_price_is_refused_and_the_node_named(space: Callable[..., SearchSpace]) -> None:
    left = space(resources={"gpus_per_worker": 1.0, "cluster": "c.yaml"}, budget={"usd": 10.0})
    lacking = replace(CLUSTER, types=(HEAD, replace(SPOT, usd_per_hour=None), SURE))
    with pytest.raises(
        ConfigError, match=r"budget.usd: must be null .*c.yaml prices no trial \(spot: no label usd-per-"
    ):
        priced(left, lacking)
    free = space(resources={"gpus_per_worker": 1.0, "cluster": "c.yaml"})
    assert priced(free, lacking).resources.usd_per_hour is None
