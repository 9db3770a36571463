"""A cluster's file as node types, and what is told of a file that is wrong; the variants are of our own files."""

from __future__ import annotations

import copy
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
import yaml
from ray.autoscaler._private.util import prepare_config, validate_config

from faar_ray.cluster.capacity import Node
from faar_ray.cluster.file import read_cluster, read_yaml_stream
from faar_ray.cluster.kuberay import read_kube
from faar_ray.cluster.node_types import NodeType
from faar_ray.cluster.ray_up import read_vm
from faar_ray.config.quoting import KeyPath
from faar_ray.config.yaml_document import Document
from faar_ray.errors import ConfigError

from ..clusters.house_rules import house_faults, rule_faults

CLUSTERS = Path(__file__).parents[2] / "clusters"
Variant = Callable[..., Path]


@pytest.fixture
def variant(tmp_path: Path) -> Variant:
    """`variant(name, old, new)`: one of our files with one change, at its first place."""

    def write(name: str, old: str, new: str) -> Path:
        text = (CLUSTERS / name).read_text()
        assert old in text, f"{name} has no {old!r} to change"
        path = tmp_path / name
        path.write_text(text.replace(old, new, 1))
        return path

    return write


def line_of(path: Path, text: str) -> int:
    return next(number for number, line in enumerate(path.read_text().splitlines(), 1) if text in line)


def test_a_file_for_ray_up_is_read() -> None:
    cluster = read_cluster(CLUSTERS / "aws.yaml")
    assert (cluster.name, cluster.provider, cluster.most_workers) == ("faar-ray", "aws", 8)
    assert cluster.types == (
        NodeType("head", Node(0, 0), 1, 0.192, spot=False, head=True),
        NodeType("gpu_spot", Node(4, 1), 8, 0.45, spot=True, head=False),
        NodeType("gpu_on_demand", Node(4, 1), 4, 0.805, spot=False, head=False),
    )


def test_the_first_raycluster_of_a_kubernetes_file_is_read() -> None:
    cluster = read_cluster(CLUSTERS / "kuberay.yaml")
    assert (cluster.name, cluster.provider, cluster.most_workers) == ("faar-ray", "kuberay", 12)
    assert cluster.types == (
        NodeType("head", Node(0, 0), 1, 0.192, spot=False, head=True),
        NodeType("gpu-spot", Node(3, 1), 8, 0.45, spot=True, head=False),
        NodeType("gpu-on-demand", Node(3, 1), 4, 0.805, spot=False, head=False),
    )


def test_a_rayjob_alone_is_read_by_the_cluster_it_brings(tmp_path: Path) -> None:
    job = (CLUSTERS / "kuberay.yaml").read_text().split("\n---\n")[-1]
    (tmp_path / "job.yaml").write_text(job)
    cluster = read_cluster(tmp_path / "job.yaml")
    assert cluster.name == "faar-ray-job"
    assert cluster.types == read_cluster(CLUSTERS / "kuberay.yaml").types


def test_hosts_of_ones_own_have_no_node_types(tmp_path: Path) -> None:
    path = tmp_path / "mine.yaml"
    path.write_text(
        "cluster_name: mine\nprovider: {type: local, head_ip: 10.0.0.1, worker_ips: [10.0.0.2, 10.0.0.3]}\n"
    )
    cluster = read_cluster(path)
    assert (cluster.provider, cluster.most_workers, cluster.types) == ("local", 2, ())


def test_a_price_that_is_missing_is_none_and_told_only_by_the_house(variant: Variant) -> None:
    path = variant("aws.yaml", 'labels: {usd-per-hour: "0.45", ', "labels: {")
    assert [kind.usd_per_hour for kind in read_cluster(path).types] == [0.192, None, 0.805]
    (fault,) = house_faults(path)
    line = line_of(path, "labels: {ray.io/market-type: spot}")
    assert fault.startswith(f"{path}:{line}:5: available_node_types.gpu_spot.labels.usd-per-hour: must be written")


RAY_MISSES = {
    "no bound on a type": (
        ("aws.yaml", "    max_workers: 8\n    priority: 10", "    priority: 10"),
        ("gpu_spot:", "available_node_types.gpu_spot.max_workers: must be written"),
    ),
    "no bound on the cluster": (("gcp.yaml", "max_workers: 8\nidle", "idle"), (None, "max_workers: must be written")),
    "a colon in the name": (
        ("azure.yaml", "cluster_name: faar-ray", "cluster_name: faar:ray"),
        ("cluster_name:", "cluster_name: must be 1 to 40 letters"),
    ),
    "a price that is no number": (
        ("aws.yaml", 'usd-per-hour: "0.45"', "usd-per-hour: cheap"),
        ("usd-per-hour: cheap", "available_node_types.gpu_spot.labels.usd-per-hour: must be a price in USD"),
    ),
    "a price below nothing": (
        ("aws.yaml", 'usd-per-hour: "0.45"', 'usd-per-hour: "-1"'),
        ('usd-per-hour: "-1"', "available_node_types.gpu_spot.labels.usd-per-hour: must be a price in USD"),
    ),
    "more at least than at most": (
        ("aws.yaml", "min_workers: 0\n    max_workers: 4", "min_workers: 5\n    max_workers: 4"),
        ("min_workers: 5", "available_node_types.gpu_on_demand.min_workers: must be at most max_workers 4, got 5"),
    ),
    "no CPUs written": (
        ("aws.yaml", "resources: {CPU: 4, GPU: 1}", "resources: {GPU: 1}"),
        ("resources: {GPU: 1}", "available_node_types.gpu_spot.resources.CPU: must be written"),
    ),
}


@pytest.mark.parametrize(("change", "message"), RAY_MISSES.values(), ids=RAY_MISSES)
def test_what_ray_lets_pass_is_told_at_its_line(
    variant: Variant, change: tuple[str, str, str], message: tuple[str | None, str]
) -> None:
    path = variant(*change)
    validate_config(prepare_config(yaml.safe_load(path.read_text())))
    with pytest.raises(ConfigError) as caught:
        read_cluster(path)
    line = line_of(path, message[0]) if message[0] else 1
    (fault,) = caught.value.faults
    assert fault.startswith(f"{path}:{line}:")
    assert f": {message[1]}" in fault


RAY_REFUSES = {
    "an unknown key": ("max_workers: 8\nidle", "max_worker: 8\nmax_workers: 8\nidle", "did you mean 'max_workers'?"),
    "a head of no type": ("head_node_type: head", "head_node_type: heads", "did you mean 'head'?"),
    "a price without quotes": ('usd-per-hour: "0.45"', "usd-per-hour: 0.45", "as quoted text"),
    "half a node": ("max_workers: 4", "max_workers: 4.5", "must be a whole number from 0, got 4.5"),
}


@pytest.mark.parametrize(("old", "new", "message"), RAY_REFUSES.values(), ids=RAY_REFUSES)
def test_what_ray_refuses_too_is_told_for_people(variant: Variant, old: str, new: str, message: str) -> None:
    path = variant("aws.yaml", old, new)
    with pytest.raises(Exception):  # noqa: B017 - jsonschema's or a ValueError: Ray's own affair
        validate_config(prepare_config(yaml.safe_load(path.read_text())))
    with pytest.raises(ConfigError) as caught:
        read_cluster(path)
    (fault,) = caught.value.faults
    assert fault.startswith(f"{path}:{line_of(path, new.splitlines()[0])}:") and message in fault


def test_all_faults_are_told_at_once_in_the_order_of_the_file(tmp_path: Path) -> None:
    text = (CLUSTERS / "aws.yaml").read_text()
    for old, new in (("cluster_name: faar-ray", "cluster_name: faar ray"), ("max_workers: 8\nidle", "idle")):
        text = text.replace(old, new)
    path = tmp_path / "aws.yaml"
    path.write_text(text.replace("resources: {CPU: 4, GPU: 1}", "resources: {GPU: 1}"))
    with pytest.raises(ConfigError) as caught:
        read_cluster(path)
    keys = [fault.removeprefix(f"{path}:").split(": ")[1] for fault in caught.value.faults]
    assert keys == ["max_workers", "cluster_name", *(
        f"available_node_types.{kind}.resources.CPU" for kind in ("gpu_spot", "gpu_on_demand")
    )]  # fmt: skip


RULES = {
    "work on the head": ("aws.yaml", "{CPU: 0}", "{CPU: 4}", "resources.CPU: must be 0 on the head"),
    "an image of the day": ("aws.yaml", "ray:2.60.0-py311-cpu", "ray:latest-py311-cpu", "must have a tag that stays"),
    "an image without a tag": ("gcp.yaml", "ray:2.60.0-py311-cu128", "ray", "must have a tag that stays"),
    "a machine image of the day": ("aws.yaml", "ImageId: ami-08c3a18fa2f155bbb", "ImageId: latest_dlami", "as an id"),
    "a family of images": ("gcp.yaml", "images/common", "images/family/common", "a family is another one tomorrow"),
    "Azure's latest": ("azure.yaml", "imageVersion: 22.04.2026082801", "imageVersion: latest", "must be a version"),
    "a key of AWS": ("aws.yaml", "type: aws", "type: aws\n  aws_access_key: AKIAABCDEFGHIJKLMNOP", "no secret"),
    "a token in a command": (
        "aws.yaml",
        "RAY_AUTH_MODE=token",
        "RAY_AUTH_MODE=token -e RAY_AUTH_TOKEN=0a1b",
        "no secret",
    ),
    "a password in an address": ("aws.yaml", "--ulimit", "-e DB=postgresql://me:word@db/x --ulimit", "no secret"),
    "an open dashboard": ("aws.yaml", "--dashboard-host=127.0.0.1", "--dashboard-host=0.0.0.0", "bound to 127.0.0.1"),
    "no token mode": ("azure.yaml", "-e RAY_AUTH_MODE=token", "-e NOTHING=1", "token authentication must be on"),
    "no token": ("gcp.yaml", "  ~/.ray/auth_token: ~/.ray/auth_token\n", "", "must be mounted"),
    "no end of idleness": ("gcp.yaml", "idle_timeout_minutes: 10\n", "", "idle_timeout_minutes: must be written"),
    "a node that waits": (
        "aws.yaml",
        "min_workers: 0\n    max_workers: 4",
        "min_workers: 1\n    max_workers: 4",
        "must be 0",
    ),
    "a door for the world": (
        "aws.yaml",
        "GroupName: faar-ray ",
        "IpPermissions: [{FromPort: 8265, ToPort: 8265, IpProtocol: tcp, IpRanges: [{CidrIp: 0.0.0.0/0}]}]\n"
        "    GroupName: faar-ray ",
        "must not let the whole world in",
    ),
    "Kubernetes without a token": ("kuberay.yaml", "{mode: token}", "{mode: disabled}", "authOptions.mode"),
    "a public service": ("kuberay.yaml", "ClusterIP", "LoadBalancer", "must be ClusterIP"),
    "a job that stays": (
        "kuberay.yaml",
        "shutdownAfterJobFinishes: true",
        "shutdownAfterJobFinishes: false",
        "must be true",
    ),
    "a job without an end": (
        "kuberay.yaml",
        "  activeDeadlineSeconds: 86400\n",
        "",
        "activeDeadlineSeconds: must be written",
    ),
    "a pod's image of the day": (
        "kuberay.yaml",
        "REGISTRY/faar_ray:0.1.0\n          ",
        "REGISTRY/faar_ray\n          ",
        "a tag that stays",
    ),
    "a group without a price": ("kuberay.yaml", 'usd-per-hour: "0.45", ', "", "labels.usd-per-hour: must be written"),
}


@pytest.mark.parametrize(("name", "old", "new", "message"), RULES.values(), ids=RULES)
def test_a_rule_of_the_house_that_is_broken_is_told(
    variant: Variant, name: str, old: str, new: str, message: str
) -> None:
    path = variant(name, old, new)
    faults = house_faults(path)
    assert faults and all(message in fault for fault in faults), faults
    changed = path.read_text()[: (CLUSTERS / name).read_text().index(old)].count("\n") + 1
    lines = [int(fault.removeprefix(f"{path}:").split(":")[0]) for fault in faults]
    if new and not message.endswith(("must be on", "authOptions.mode")):
        assert min(abs(line - changed) for line in lines) <= 3, (faults, changed)


@pytest.mark.parametrize("name", ["aws.yaml", "gcp.yaml", "kuberay.yaml"])
@pytest.mark.parametrize("odd", [None, 5, "text", [], {}, [{}], {"a": [1]}, -1.5], ids=repr)
def test_whatever_stands_at_a_key_is_read_or_told(name: str, odd: Any) -> None:
    """Every key of our files with an odd value in turn: faults, never a crash."""
    for whole in read_yaml_stream(CLUSTERS / name):
        if whole.data.get("kind") == "ServiceAccount":
            continue
        read = read_kube if "kind" in whole.data else read_vm
        for path in keys(whole.data, ()):
            if path == ("kind",):
                continue
            data = copy.deepcopy(whole.data)
            put(data, path, odd)
            document = Document(name, data, whole.places)
            _, faults = read(Path(name), document)
            assert {fault.path for fault in faults} <= {fault.path for fault in rule_faults(Path(name), document)}


def keys(value: Any, path: KeyPath) -> Iterator[KeyPath]:
    pairs = value.items() if isinstance(value, dict) else enumerate(value) if isinstance(value, list) else ()
    for key, below in pairs:
        yield (*path, key)
        yield from keys(below, (*path, key))


def put(data: Any, path: KeyPath, value: Any) -> None:
    for key in path[:-1]:
        data = data[key]
    data[path[-1]] = value
