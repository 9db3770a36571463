"""How far a cluster can grow: its file, what Ray's GCS has, the file of `ray up`; and nothing counted twice."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import ray
import yaml
from ray._private.state import state
from ray.core.generated import autoscaler_pb2

from faar_ray.cluster.autoscaling import (
    TYPE,
    UNBOUNDED_COUNT,
    autoscalable_nodes,
    cluster_capacity,
    cluster_from_file,
    cluster_from_ray,
)
from faar_ray.cluster.capacity import Node
from faar_ray.cluster.node_types import ClusterFile, NodeType
from faar_ray.cluster.ray_cluster import Machine
from faar_ray.config.run_sections import Resources
from faar_ray.errors import ConfigError

TABLES: Any = autoscaler_pb2  # generated at import, so it has no types
HEAD = NodeType("head", Node(0, 0), 1, 0.2, False, True)
SPOT = NodeType("spot", Node(8, 1), 4, 0.4, True, False)
SURE = NodeType("sure", Node(8, 1), 4, 1.2, False, False)
SMALL = NodeType("small", Node(2, 0), 4, 0.1, False, False)
GPU = Resources(gpus_per_worker=0.5)


def cluster(*types: NodeType, most: int = 100) -> ClusterFile:
    return ClusterFile(Path("c.yaml"), "c", "aws", most, types)


def machine(kind: NodeType, *, labelled: bool = True) -> Machine:
    return Machine("10.0.0.1", kind.node, kind.head, {TYPE: kind.name} if labelled else {})


def test_before_anything_is_up_all_may_come_within_the_bound_of_the_whole_cluster() -> None:
    result = autoscalable_nodes(cluster(HEAD, SMALL, SPOT, most=6), [], GPU)
    assert [kind.name for kind in result] == ["head", *["spot"] * 4, *["small"] * 2]  # those that help a trial first
    assert cluster_capacity(GPU, [], cluster(HEAD, SPOT)).concurrent == 8
    assert cluster_capacity(GPU, [], cluster(HEAD, SPOT, most=3)).concurrent == 6


@pytest.mark.parametrize("labelled", [True, False])
def test_live_machines_and_those_that_may_come_are_not_counted_twice(labelled: bool) -> None:
    alive = [machine(HEAD), machine(SPOT, labelled=labelled), machine(SPOT, labelled=labelled)]
    result = cluster_capacity(GPU, alive, cluster(HEAD, SPOT))
    assert (result.concurrent, result.now) == (8, 4)
    assert cluster_capacity(GPU, alive, cluster(HEAD, SPOT, most=3)).concurrent == 6
    assert cluster_capacity(GPU, [*alive, *[machine(SPOT)] * 2], cluster(HEAD, SPOT)).concurrent == 8


def test_a_label_tells_types_of_the_same_size_apart() -> None:
    result = autoscalable_nodes(cluster(HEAD, SPOT, SURE), [machine(HEAD), *[machine(SURE)] * 3], GPU)
    assert sorted(kind.name for kind in result) == ["spot"] * 4 + ["sure"]


def test_a_machine_of_no_known_type_counts_as_it_is() -> None:
    strange = Machine("10.0.0.9", Node(32, 2), False, {})
    assert cluster_capacity(GPU, [machine(HEAD), strange], cluster(HEAD, SPOT, most=3)).concurrent == 4 + 2 * 2


def test_what_never_fits_is_refused_and_the_file_named_where_none_was_given() -> None:
    rule = r"any of 5 machines \(4 of them not started yet\): cpus_per_worker: 16 CPUs, at most 8"
    with pytest.raises(ConfigError, match=rule):
        cluster_capacity(Resources(cpus_per_worker=16), [machine(HEAD)], cluster(HEAD, SPOT))
    with pytest.raises(ConfigError, match=r"the one machine of the cluster: .* set resources.cluster to its file"):
        cluster_capacity(Resources(), [machine(HEAD)], None)


def test_a_cluster_file_that_is_not_there_is_told_at_the_key_and_a_faulty_one_at_its_own_line(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=r"^resources\.cluster: .*gone\.yaml: no such file"):
        cluster_from_file(str(tmp_path / "gone.yaml"))
    broken = tmp_path / "broken.yaml"
    broken.write_text("cluster_name: a:b\nmax_workers: 2\nprovider: {type: aws}\n")
    with pytest.raises(ConfigError) as fault:
        cluster_from_file(str(broken))
    assert all(line.startswith(f"{broken}:") for line in fault.value.faults)
    assert cluster_from_file(None) is None


def test_what_an_autoscaler_reported_to_ray_counts(monkeypatch: pytest.MonkeyPatch) -> None:
    config = TABLES.ClusterConfig()
    for name, cpus, most in (("a", 4, 3), ("endless", 2, -1)):
        config.node_group_configs.add(name=name, resources={"CPU": cpus}, max_count=most)
    monkeypatch.setattr(state, "get_cluster_config", lambda: config)
    message = cluster_from_ray([machine(HEAD)])
    assert message is not None
    assert [(kind.name, kind.node, kind.most) for kind in message.types] == [
        ("a", Node(4, 0), 3),
        ("endless", Node(2, 0), UNBOUNDED_COUNT),
    ]
    assert cluster_capacity(Resources(cpus_per_worker=4), [machine(HEAD)], message).concurrent == 3


def test_on_the_head_the_file_of_ray_up_counts(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HOME", str(tmp_path))
    monkeypatch.setattr(state, "get_cluster_config", lambda: None)
    monkeypatch.setattr(ray.util, "get_node_ip_address", lambda: "10.0.0.1")
    assert cluster_from_ray([machine(HEAD)]) is None
    (tmp_path / "ray_bootstrap_config.yaml").write_text(yaml.safe_dump(VM))
    message = cluster_from_ray([machine(HEAD)])
    assert message is not None
    assert cluster_capacity(Resources(), [machine(HEAD)], message).concurrent == 2 * 4
    assert cluster_from_ray([Machine("10.0.0.2", Node(0, 0), True, {})]) is None  # another cluster's head


VM = {
    "cluster_name": "c",
    "max_workers": 2,
    "provider": {"type": "aws", "region": "us-east-1"},
    "head_node_type": "head",
    "available_node_types": {
        "head": {"resources": {"CPU": 0}, "node_config": {}},
        "worker": {"resources": {"CPU": 4}, "node_config": {}, "min_workers": 0, "max_workers": 2},
    },
}
