"""What a trial and a cluster cost, from the prices of nodes."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest

from faar_ray.cluster.capacity import Node
from faar_ray.cluster.node_types import PRICE, ClusterFile, NodeType
from faar_ray.cluster.prices import dearest_share, idle_price, price_of, top_price
from faar_ray.cluster.ray_cluster import Machine
from faar_ray.config.run_sections import Resources

HEAD = NodeType("head", Node(0, 0), 1, 0.2, False, True)
SPOT = NodeType("spot", Node(16, 2), 4, 0.8, True, False)
SURE = NodeType("sure", Node(16, 1), 1, 1.2, False, False)
CPU = NodeType("cpu", Node(4, 0), 8, 9.0, False, False)
CLUSTER = ClusterFile(Path("c.yaml"), "c", "aws", 4, (HEAD, SPOT, SURE, CPU))


@pytest.mark.parametrize(
    ("need", "usd", "of"),
    [
        (Resources(gpus_per_worker=1), 1.2, "sure"),
        (Resources(gpus_per_worker=0.25), 0.3, "sure"),
        (Resources(gpus_per_worker=2), 0.8, "spot"),
        (Resources(workers=4, gpus_per_worker=1), 4.8, "sure"),
        (Resources(gpus_per_worker=0.25, cpus_per_worker=8), 0.6, "sure"),  # CPUs run out before GPUs do
        (Resources(), 2.25, "cpu"),
    ],
)
def test_a_trial_pays_its_share_of_the_dearest_node_that_takes_it(need: Resources, usd: float, of: str) -> None:
    share = dearest_share(need, CLUSTER.types)
    assert share is not None
    assert share.usd_per_hour == pytest.approx(usd)
    assert share.of == of


def test_a_trial_has_no_price_where_a_node_that_takes_it_has_none() -> None:
    free = replace(SPOT, usd_per_hour=None)
    assert dearest_share(Resources(gpus_per_worker=1), [HEAD, free, SURE]) is None
    assert dearest_share(Resources(gpus_per_worker=1), [replace(CPU, usd_per_hour=None), SURE]) is not None
    assert dearest_share(Resources(gpus_per_worker=4), CLUSTER.types) is None


def test_a_cluster_costs_its_head_and_at_most_its_dearest_workers() -> None:
    assert idle_price(CLUSTER) == 0.2
    assert top_price(CLUSTER) == pytest.approx(0.2 + 4 * 9.0)
    assert top_price(replace(CLUSTER, most_workers=10)) == pytest.approx(0.2 + 8 * 9.0 + 1.2 + 0.8)
    assert top_price(replace(CLUSTER, types=(HEAD, replace(SPOT, usd_per_hour=None)))) is None


def test_a_live_machine_has_the_price_of_its_label_else_of_its_type() -> None:
    assert price_of(Machine("a", SPOT.node, False, {PRICE: "0.5"}), CLUSTER.types) == 0.5
    assert price_of(Machine("a", SPOT.node, False, {}), CLUSTER.types) == 0.8
    assert price_of(Machine("a", Node(1, 0), False, {PRICE: "cheap"}), CLUSTER.types) is None
