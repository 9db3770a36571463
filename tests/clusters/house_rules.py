"""What a careful operator asks of a cluster's file beyond what `read_cluster` needs.

A file that breaks these works, and costs or leaks: a search may run on it. The files in `clusters/` keep them all.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from faar_ray.cluster.checks import listing, mapping
from faar_ray.cluster.file import read_yaml_stream
from faar_ray.cluster.kuberay import cluster_spec, is_kube, read_kube
from faar_ray.cluster.node_types import PRICE, NodeType
from faar_ray.cluster.ray_up import TYPES, read_vm
from faar_ray.config.quoting import KeyPath
from faar_ray.config.validation_messages import Issue, format_issues
from faar_ray.config.yaml_document import Document
from faar_ray.errors import ConfigError

TOKEN = "token authentication must be on: "
SECRET = re.compile(
    r"(?:AKIA|ASIA)[0-9A-Z]{16}|-----BEGIN [A-Z ]*PRIVATE KEY|://[^/\s:@]+:[^/\s@]+@"
    r"|(?i:secret_access_key|auth_token|password|secret_key)\s*=\s*[^\s$'\"]"
)
"""Keys of AWS, private keys, `user:password@` in an address, a secret that is set to a text (`$NAME` is none)."""
SECRET_KEYS = {
    "aws_credentials",
    "aws_secret_access_key",
    "gcp_credentials",
    "password",
    "ray_auth_token",
    "secret_key",
}
OPEN_DASHBOARD = re.compile(r"--dashboard-host[= ](?:0\.0\.0\.0|::)(?![\w.])")
MOVING = re.compile(r"(?:latest|nightly|master)\b", re.IGNORECASE)


def house_faults(path: Path) -> list[str]:
    """All faults of a cluster's file, those of `read_cluster` and those of the house, as lines; of every document.

    Raises:
        ConfigError: no such file, no YAML.
    """
    documents = read_yaml_stream(path)
    kinds = [document for document in documents if is_kube(document)]
    if len(documents) > 1 and not kinds:
        raise ConfigError(f"{path}:1:1: kind: one document must be a RayCluster or a RayJob")
    return [line for document in documents for line in format_issues(rule_faults(path, document), document)]


def rule_faults(path: Path, document: Document) -> list[Issue]:
    """All faults of one document; of another kind than a cluster only what holds for whatever a file describes."""
    judge = _kube if is_kube(document) else _any if "kind" in document.data else _vm
    return list(judge(path, document))


def _any(path: Path, document: Document) -> Iterator[Issue]:
    """What holds for whatever a file describes."""
    for where, text in _texts(document.data, ()):
        key = str(where[-1]).lower()
        if SECRET.search(text) or (key in SECRET_KEYS and text):
            yield Issue(where, "a file must hold no secret: use an instance profile, or a file that is mounted")
        if key in ("image", "head_image", "worker_image") and (fault := _image(text)):
            yield Issue(where, fault)


def _vm(path: Path, document: Document) -> Iterator[Issue]:
    data = document.data
    cluster, faults = read_vm(path, document)
    yield from faults
    yield from _any(path, document)
    yield from _shared(cluster.types if cluster else (), {kind: (TYPES, kind) for kind in mapping(data.get(TYPES))})
    yield from _doors(data)
    for called, kind in mapping(data.get(TYPES)).items():
        if called != data.get("head_node_type") and mapping(kind).get("min_workers"):
            yield Issue((TYPES, called, "min_workers"), "must be 0: such a node is paid for without a search")
        yield from _machine(mapping(mapping(kind).get("node_config")), (TYPES, called, "node_config"))
    if mapping(data.get("provider")).get("type") != "local" and "idle_timeout_minutes" not in data:
        yield Issue(("idle_timeout_minutes",), "must be written: how long an idle worker is paid for")


def _kube(path: Path, document: Document) -> Iterator[Issue]:
    cluster, faults = read_kube(path, document)
    where, spec = cluster_spec(document)
    yield from faults
    yield from _any(path, document)
    groups: dict[str, KeyPath] = {"head": (*where, "headGroupSpec")}
    for index, group in enumerate(listing(spec.get("workerGroupSpecs"))):
        groups[str(mapping(group).get("groupName"))] = (*where, "workerGroupSpecs", index)
        if mapping(group).get("minReplicas"):
            path_ = (*where, "workerGroupSpecs", index, "minReplicas")
            yield Issue(path_, "must be 0: such a node is paid for without a search")
    yield from _shared(cluster.types if cluster else (), groups)
    if mapping(spec.get("authOptions")).get("mode") != "token":
        yield Issue((*where, "authOptions", "mode"), TOKEN + "must be token")
    if mapping(spec.get("headGroupSpec")).get("serviceType", "ClusterIP") != "ClusterIP":
        yield Issue((*where, "headGroupSpec", "serviceType"), "must be ClusterIP: others let the world in")
    if "idleTimeoutSeconds" not in mapping(spec.get("autoscalerOptions")):
        text = "must be written: how long an idle worker is paid for"
        yield Issue((*where, "autoscalerOptions", "idleTimeoutSeconds"), text)
    if document.data["kind"] == "RayJob":
        yield from _job(mapping(document.data.get("spec")))


def _job(spec: dict[str, Any]) -> Iterator[Issue]:
    if spec.get("shutdownAfterJobFinishes") is not True:
        yield Issue(("spec", "shutdownAfterJobFinishes"), "must be true: the cluster would stay")
    if not spec.get("activeDeadlineSeconds"):
        yield Issue(("spec", "activeDeadlineSeconds"), "must be written: a job that hangs is paid for")


def _shared(types: tuple[NodeType, ...], places: dict[str, KeyPath]) -> Iterator[Issue]:
    """Of node types, whichever file they are from."""
    for kind in types:
        where = places.get(kind.name, ())
        if kind.usd_per_hour is None:
            yield Issue((*where, "labels", PRICE), 'must be written: the price of a node in USD, as text ("0.526")')
        if kind.head and kind.node.cpus:
            yield Issue((*where, "resources", "CPU"), "must be 0 on the head: a trial there can take the cluster down")


def _doors(data: dict[str, Any]) -> Iterator[Issue]:
    """Who may come in: the token, the dashboard, the security group."""
    docker = mapping(data.get("docker"))
    for who in ("head", "worker"):
        words = listing(docker.get("run_options")) + listing(docker.get(f"{who}_run_options"))
        commands = listing(data.get(f"{who}_start_ray_commands"))
        if not any("RAY_AUTH_MODE=token" in str(word) for word in [*words, *commands]):
            text = "RAY_AUTH_MODE=token in docker.run_options, or in each command that starts Ray"
            yield Issue((f"{who}_start_ray_commands",), TOKEN + text)
        for index, command in enumerate(commands):
            if OPEN_DASHBOARD.search(str(command)):
                place = (f"{who}_start_ray_commands", index)
                yield Issue(place, "the dashboard must be bound to 127.0.0.1: `ray dashboard` forwards it")
    if not any(str(remote).endswith(".ray/auth_token") for remote in mapping(data.get("file_mounts"))):
        yield Issue(("file_mounts",), TOKEN + "~/.ray/auth_token must be mounted")
    group = mapping(mapping(data.get("provider")).get("security_group"))
    for index, rule in enumerate(listing(group.get("IpPermissions"))):
        if "0.0.0.0/0" in str(rule) or "::/0" in str(rule):
            rules: KeyPath = ("provider", "security_group", "IpPermissions", index)
            yield Issue(rules, "must not let the whole world in: Ray adds SSH by itself")


def _machine(config: dict[str, Any], path: KeyPath) -> Iterator[Issue]:
    """A machine image that is another one tomorrow, in the words of AWS, GCP and Azure."""
    if "InstanceType" in config and not str(config.get("ImageId")).startswith("ami-"):
        yield Issue((*path, "ImageId"), "must be written as an id: Ray's default is another one with each version")
    for index, disk in enumerate(listing(config.get("disks"))):
        if "/family/" in str(mapping(mapping(disk).get("initializeParams")).get("sourceImage")):
            place = (*path, "disks", index, "initializeParams", "sourceImage")
            yield Issue(place, "must name an image: a family is another one tomorrow")
    azure = mapping(config.get("azure_arm_parameters"))
    if azure and MOVING.match(str(azure.get("imageVersion", "latest"))):
        yield Issue((*path, "azure_arm_parameters", "imageVersion"), "must be a version")


def _image(text: str) -> str:
    """What is wrong with a container image's name, "" for nothing."""
    tag = text.rpartition("/")[2].partition("@")
    name, _, version = tag[0].partition(":")
    if tag[2] or (version and not MOVING.match(version)):
        return ""
    return f"must have a tag that stays, got {name + ':' + version if version else name + ' without one'}"


def _texts(value: Any, path: KeyPath) -> Iterator[tuple[KeyPath, str]]:
    """Every text of a document with its path."""
    pairs = value.items() if isinstance(value, dict) else enumerate(value) if isinstance(value, list) else ()
    for key, below in pairs:
        yield from _texts(below, (*path, key))
    if isinstance(value, str) and path:
        yield path, value
