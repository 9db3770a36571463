"""`clusters/kuberay.yaml` against KubeRay's own definitions; strictly, for Kubernetes drops a key it does not know."""

from __future__ import annotations

import copy
from collections.abc import Iterator
from functools import cache
from pathlib import Path
from typing import Any

import pytest
import yaml
from jsonschema import Draft202012Validator

ROOT = Path(__file__).parents[2]
DEFINITIONS = ROOT.parent / "shared" / "kuberay"
FILES = {"RayCluster": "ray.io_rayclusters.yaml", "RayJob": "ray.io_rayjobs.yaml"}

pytestmark = pytest.mark.skipif(
    not DEFINITIONS.is_dir(), reason="KubeRay's definitions are not there (../shared/kuberay)"
)


@cache
def documents() -> dict[str, dict[str, Any]]:
    return {one["kind"]: one for one in yaml.safe_load_all((ROOT / "clusters" / "kuberay.yaml").read_text()) if one}


@cache
def validator(kind: str) -> Draft202012Validator:
    loader = getattr(yaml, "CSafeLoader", yaml.SafeLoader)
    definition = yaml.load((DEFINITIONS / FILES[kind]).read_text(), loader)  # a loader of safe values, either way
    version = next(one for one in definition["spec"]["versions"] if one["name"] == "v1")
    return Draft202012Validator(strict(version["schema"]["openAPIV3Schema"]))


def strict(schema: Any) -> Any:
    """The schema with every mapping closed whose keys it names."""
    if isinstance(schema, list):
        return [strict(one) for one in schema]
    if not isinstance(schema, dict):
        return schema
    out = {key: strict(value) for key, value in schema.items()}
    if isinstance(schema.get("properties"), dict) and schema.get("type") == "object":
        out.setdefault("additionalProperties", False)
    return out


def faults(kind: str, document: dict[str, Any]) -> Iterator[str]:
    for error in validator(kind).iter_errors(document):
        yield f"{'.'.join(map(str, error.absolute_path))}: {error.message}"


@pytest.mark.parametrize("kind", FILES)
def test_the_document_is_what_kuberay_defines(kind: str) -> None:
    assert list(faults(kind, documents()[kind])) == []


@pytest.mark.parametrize(
    ("path", "value", "said"),
    [
        (("maxReplica",), 8, "maxReplica"),
        (("maxReplicas",), "8", "is not of type 'integer'"),
        (("labels", "usd-per-hour"), 0.45, "is not of type 'string'"),
        (("template", "spec", "nodeSelectors"), {}, "nodeSelectors"),
    ],
)
def test_what_kubernetes_would_drop_or_refuse_is_seen(path: tuple[str, ...], value: Any, said: str) -> None:
    document = copy.deepcopy(documents()["RayCluster"])
    place = document["spec"]["workerGroupSpecs"][0]
    for key in path[:-1]:
        place = place[key]
    place[path[-1]] = value
    assert any(said in fault for fault in faults("RayCluster", document))


def test_the_job_brings_the_cluster_that_the_other_document_describes() -> None:
    assert documents()["RayJob"]["spec"]["rayClusterSpec"] == documents()["RayCluster"]["spec"]


def test_either_way_of_searching_can_be_applied_by_its_label() -> None:
    labels = {kind: one["metadata"]["labels"]["faar-ray"] for kind, one in documents().items()}
    assert labels == {"ServiceAccount": "all", "RayCluster": "cluster", "RayJob": "job"}
    account = documents()["ServiceAccount"]["metadata"]["name"]
    spec = documents()["RayCluster"]["spec"]
    groups = [spec["headGroupSpec"], *spec["workerGroupSpecs"]]
    assert {group["template"]["spec"]["serviceAccountName"] for group in groups} == {account}
