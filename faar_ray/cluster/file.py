"""A cluster's file, for `ray up` or a RayCluster of Kubernetes, as node types with their numbers and prices.

Ray itself checks such a file late, stops at the first fault, fills in missing bounds and accepts names that fail later.
"""

from __future__ import annotations

import re
from itertools import accumulate, pairwise
from pathlib import Path

from faar_ray.cluster.kuberay import KINDS, is_kube, read_kube
from faar_ray.cluster.node_types import ClusterFile
from faar_ray.cluster.ray_up import read_vm
from faar_ray.config.text_file import read_text
from faar_ray.config.validation_messages import format_issues
from faar_ray.config.yaml_document import Document, document_of
from faar_ray.errors import ConfigError


def read_cluster(path: Path) -> ClusterFile:
    """The cluster of a file; of several Kubernetes documents, the first RayCluster or else the first RayJob.

    A missing price is None, not a fault.

    Raises:
        ConfigError: no such file, no YAML, no cluster, or invalid bounds or names; all faults at once.
    """
    document = cluster_document(path)
    cluster, faults = (read_kube if is_kube(document) else read_vm)(path, document)
    if faults or cluster is None:
        raise ConfigError(format_issues(faults, document))
    return cluster


def cluster_document(path: Path) -> Document:
    """The document of a file that describes the cluster.

    Raises:
        ConfigError: no such file, no YAML, or several documents without a cluster.
    """
    documents = read_yaml_stream(path)
    clusters = [document for kind in KINDS for document in documents if document.data.get("kind") == kind]
    if len(documents) > 1 and not clusters:
        line, column = documents[0].place(("kind",))
        raise ConfigError(f"{path}:{line}:{column}: kind: one document must be a RayCluster or a RayJob")
    return next(iter(clusters), documents[0])


START = re.compile(r"^---(?=\s)", re.MULTILINE)
CONTENT = re.compile(r"^(?!---\s)\s*[^#\s]", re.MULTILINE)
"""A line that is not empty, a comment or a bare document marker."""


def read_yaml_stream(path: Path) -> list[Document]:
    """Read the mappings of a file with `---` between them; empty parts are left out.

    Raises:
        ConfigError: as `read_yaml`, of the first part that has faults.
    """
    text = read_text(path).replace("\r\n", "\n").replace("\r", "\n")
    starts = [0, *(match.start() for match in START.finditer(text)), len(text)]
    parts = [text[start:end] for start, end in pairwise(starts)]
    above = accumulate((part.count("\n") for part in parts), initial=0)
    written = [(part, lines) for part, lines in zip(parts, above, strict=False) if CONTENT.search(part)]
    return [document_of("\n" * lines + part, str(path)) for part, lines in written or [(text, 0)]]
