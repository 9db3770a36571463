"""Node types of a file for `ray up`."""

from __future__ import annotations

import json
from collections.abc import Iterator
from functools import cache
from importlib.util import find_spec
from pathlib import Path
from typing import Any

from jsonschema import Draft7Validator, ValidationError

from faar_ray.cluster.capacity import Node
from faar_ray.cluster.checks import count, listing, mapping, name, price
from faar_ray.cluster.node_types import MARKET, ClusterFile, NodeType
from faar_ray.config.quoting import KeyPath, format_path, quote_value
from faar_ray.config.validation_messages import Issue, did_you_mean
from faar_ray.config.yaml_document import Document

TYPES = "available_node_types"
UNBOUND = "Ray would take the whole cluster's bound"
UNWRITTEN = "Ray would take its own default"


def read_vm(path: Path, document: Document) -> tuple[ClusterFile | None, list[Issue]]:
    """The cluster and all faults of the file.

    Keys and types are checked by Ray's schema, bounds and names by this package.
    """
    data = document.data
    faults = [fault for error in Draft7Validator(_schema()).iter_errors(data) for fault in _schema_faults(error)]
    cluster_name = name(data.get("cluster_name"), ("cluster_name",), faults)
    provider = mapping(data.get("provider")).get("type")
    if provider == "local":
        most = len(listing(mapping(data.get("provider")).get("worker_ips")))
        cluster = ClusterFile(path, cluster_name, provider, most, ())
    else:
        most = count(data, "max_workers", (), faults, UNWRITTEN)
        cluster = ClusterFile(path, cluster_name, str(provider), most, tuple(_types(data, faults)))
    # one fault per key: the package's own comes last and replaces that of Ray's schema
    return cluster, list({format_path(fault.path): fault for fault in faults}.values())


@cache
def _schema() -> dict[str, Any]:
    spec = find_spec("ray")
    assert spec is not None and spec.origin is not None
    schema: dict[str, Any] = json.loads((Path(spec.origin).parent / "autoscaler" / "ray-schema.json").read_text())
    return schema


def _schema_faults(error: ValidationError) -> Iterator[Issue]:
    path: KeyPath = tuple(error.absolute_path)
    rule: Any = error.validator_value
    written: Any = error.instance
    if error.validator == "required":
        missing = [key for key in rule if key not in written]
        yield from (Issue((*path, key), "must be written") for key in missing)
    elif error.validator == "additionalProperties":
        known = mapping(error.schema).get("properties", {})
        for key in [key for key in written if key not in known]:
            yield Issue((*path, key), f"unknown key{did_you_mean(key, known)}")
    elif error.validator == "type":
        yield Issue(path, f"must be of type {rule}, got {quote_value(written)}")
    else:
        yield Issue(path, f"breaks Ray's rule {error.validator}: {quote_value(rule)}")


def _types(data: dict[str, Any], faults: list[Issue]) -> Iterator[NodeType]:
    head, types = data.get("head_node_type"), mapping(data.get(TYPES))
    if not types:
        faults.append(Issue((TYPES,), "must name the node types, the head's and the workers'"))
    elif not isinstance(head, str) or head not in types:
        hint = did_you_mean(str(head), types)
        rule = f"must be one of {', '.join(types)}, got {quote_value(head)}{hint}"
        faults.append(Issue(("head_node_type",), "must be written" if head is None else rule))
    for type_name, kind in types.items():
        yield _type(type_name, mapping(kind), type_name == head, faults)


def _type(type_name: str, kind: dict[str, Any], head: bool, faults: list[Issue]) -> NodeType:
    path: KeyPath = (TYPES, type_name)
    bound = count({"max_workers": 0, **kind} if head else kind, "max_workers", path, faults, UNBOUND)
    most = bound + head
    least = kind.get("min_workers", 0)
    if isinstance(least, int) and not head and "max_workers" in kind and least > bound:
        faults.append(Issue((*path, "min_workers"), f"must be at most max_workers {bound}, got {least}"))
    labels = kind.get("labels")
    return NodeType(
        name=type_name,
        node=_node(mapping(kind.get("resources")), path, faults),
        most=most,
        usd_per_hour=price(labels, (*path, "labels"), faults),
        spot=mapping(labels).get(MARKET) == "spot" or _by_spot(mapping(kind.get("node_config"))),
        head=head,
    )


def _node(resources: dict[str, Any], path: KeyPath, faults: list[Issue]) -> Node:
    if "CPU" not in resources:
        faults.append(Issue((*path, "resources", "CPU"), "must be written: it is not known before the machine runs"))
    amounts = [resources.get(key, 0) for key in ("CPU", "GPU")]
    cpus, gpus = (float(value) if isinstance(value, int | float) else 0.0 for value in amounts)
    return Node(cpus, gpus)


def _by_spot(node_config: dict[str, Any]) -> bool:
    """Whether the machine's settings for AWS, GCP or Azure request a spot instance."""
    market = mapping(node_config.get("InstanceMarketOptions")).get("MarketType")
    plan = node_config.get("scheduling")
    plans = [mapping(one) for one in (listing(plan) or [plan])]
    priority = mapping(node_config.get("azure_arm_parameters")).get("priority")
    google = any(one.get("preemptible") is True or one.get("provisioningModel") == "SPOT" for one in plans)
    return market == "spot" or google or str(priority).lower() in ("spot", "low")
