"""Node types of a RayCluster, or of the cluster in a RayJob."""

from __future__ import annotations

import math
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from faar_ray.cluster.capacity import Node
from faar_ray.cluster.checks import count, listing, mapping, name, price
from faar_ray.cluster.node_types import MARKET, ClusterFile, NodeType
from faar_ray.config.quoting import KeyPath, quote_value
from faar_ray.config.validation_messages import Issue
from faar_ray.config.yaml_document import Document

KINDS = {"RayCluster": ("spec",), "RayJob": ("spec", "rayClusterSpec")}
"""Path of the cluster's description in each kind of document."""
SPOT = {
    "cloud.google.com/gke-spot": "true",
    "eks.amazonaws.com/capacityType": "SPOT",
    "karpenter.sh/capacity-type": "spot",
    "kubernetes.azure.com/scalesetpriority": "spot",
}
"""Node selectors for spot nodes in the clouds' Kubernetes services."""
UNITS = {"m": 1e-3, "": 1.0, "k": 1e3}


def is_kube(document: Document) -> bool:
    """Whether a document describes a cluster for KubeRay."""
    return any(document.data.get("kind") == kind for kind in KINDS)


def cluster_spec(document: Document) -> tuple[KeyPath, dict[str, Any]]:
    """Path and contents of the cluster's description in a document."""
    where, spec = KINDS[document.data["kind"]], document.data
    for key in where:
        spec = mapping(spec.get(key))
    return where, spec


def read_kube(path: Path, document: Document) -> tuple[ClusterFile | None, list[Issue]]:
    """The cluster and all faults of the document."""
    faults: list[Issue] = []
    where, spec = cluster_spec(document)
    if not mapping(spec.get("headGroupSpec")):
        faults.append(Issue((*where, "headGroupSpec"), "must be written"))
    groups = spec.get("workerGroupSpecs", [])
    if not isinstance(groups, list):
        faults.append(Issue((*where, "workerGroupSpecs"), f"must be a list, got {quote_value(groups)}"))
    cluster_name = name(mapping(document.data.get("metadata")).get("name"), ("metadata", "name"), faults)
    head = _head(mapping(spec.get("headGroupSpec")), (*where, "headGroupSpec"), faults)
    workers = list(_workers(listing(groups), (*where, "workerGroupSpecs"), faults))
    return ClusterFile(path, cluster_name, "kuberay", sum(kind.most for kind in workers), (head, *workers)), faults


def _head(group: dict[str, Any], path: KeyPath, faults: list[Issue]) -> NodeType:
    node = _node(group, path, faults) if group else Node(0, 0)
    return NodeType("head", node, 1, _price(group, path, faults), spot=_by_spot(group), head=True)


def _workers(groups: list[Any], path: KeyPath, faults: list[Issue]) -> Iterator[NodeType]:
    why = "the operator refuses a group without it"
    for index, data in enumerate(groups):
        group, group_path = mapping(data), (*path, index)
        group_name = group.get("groupName")
        if not isinstance(group_name, str):
            faults.append(Issue((*group_path, "groupName"), f"must be text, got {quote_value(group_name)}"))

        most = count(group, "maxReplicas", group_path, faults, why)
        least = group.get("minReplicas", 0)
        if isinstance(least, int) and "maxReplicas" in group and least > most:
            faults.append(Issue((*group_path, "minReplicas"), f"must be at most maxReplicas {most}, got {least}"))
        most *= group["numOfHosts"] if isinstance(group.get("numOfHosts"), int) else 1
        usd = _price(group, group_path, faults)
        yield NodeType(str(group_name), _node(group, group_path, faults), most, usd, spot=_by_spot(group), head=False)


def _node(group: dict[str, Any], path: KeyPath, faults: list[Issue]) -> Node:
    """One pod's CPUs and GPUs: `resources` or `rayStartParams` of the group, else the first container's limits."""
    pod = mapping(mapping(group.get("template")).get("spec"))
    containers = listing(pod.get("containers"))
    if not containers:
        faults.append(Issue((*path, "template", "spec", "containers"), "must hold the container that runs Ray"))
        return Node(0, 0)

    resources = mapping(mapping(containers[0]).get("resources"))
    limits = {**mapping(resources.get("requests")), **mapping(resources.get("limits"))}
    start, ray_resources = mapping(group.get("rayStartParams")), mapping(group.get("resources"))
    cpus = ray_resources.get("CPU", start.get("num-cpus", limits.get("cpu")))
    gpus = ray_resources.get("GPU", start.get("num-gpus", limits.get("nvidia.com/gpu", 0)))
    below = (*path, "template", "spec", "containers", 0, "resources")
    if cpus is None:
        faults.append(Issue((*below, "limits", "cpu"), "must be written: Ray would take all CPUs of the machine"))
        cpus = 0
    return Node(_quantity(cpus, below, faults), _quantity(gpus, below, faults))


def _quantity(value: Any, path: KeyPath, faults: list[Issue]) -> float:
    """A quantity of Kubernetes as a number: `4`, `"4"` or `500m`."""
    text = str(value)
    number, unit = (text[:-1], text[-1]) if text[-1:] in ("m", "k") else (text, "")
    try:
        quantity = float(number) * UNITS[unit]
    except ValueError:
        quantity = math.nan
    if 0 <= quantity < math.inf:
        return quantity
    faults.append(Issue(path, f"CPUs and GPUs must be numbers such as 4 or 500m, got {quote_value(value)}"))
    return 0.0


def _price(group: dict[str, Any], path: KeyPath, faults: list[Issue]) -> float | None:
    return price(group.get("labels"), (*path, "labels"), faults)


def _by_spot(group: dict[str, Any]) -> bool:
    selector = mapping(mapping(mapping(group.get("template")).get("spec")).get("nodeSelector"))
    spot_node = any(str(selector.get(key)) == value for key, value in SPOT.items())
    return spot_node or mapping(group.get("labels")).get(MARKET) == "spot"
