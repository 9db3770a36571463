"""`adapter.safetensors`: all that was trained, at its final ranks, and what is needed to build it again."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from importlib.metadata import version
from pathlib import Path

import torch
from safetensors.torch import save
from torch import Tensor

from faar_ray.config.trial import TrialConfig
from faar_ray.models import MultiTaskModel, adapter_list, trained_state
from faar_ray.storage.atomic import atomic_write_or_storage_error

FORMAT = "faar_ray.adapter.1"


def write_adapter(path: Path, model: MultiTaskModel, config: TrialConfig) -> None:
    """Factors, magnitudes, heads and the backbone's own trained weights; config, ranks and versions as metadata."""
    tensors = {name: tensor.detach().cpu().contiguous() for name, tensor in trained_state(model).items()}
    ranks = {adapter.site.place: adapter.rank for adapter in adapter_list(model)}
    metadata = {
        "format": FORMAT,
        "config": config.model_dump_json(),
        "ranks": json.dumps(ranks),
        "versions": versions(),
        "weights": model.weights_digest,
        "sha256": digest(tensors),
    }
    with atomic_write_or_storage_error(path) as scratch:
        scratch.write_bytes(save(tensors, metadata=metadata))


def digest(tensors: Mapping[str, Tensor]) -> str:
    """One sha256 over names and values, which the format itself does not protect."""
    sha256 = hashlib.sha256()
    for name in sorted(tensors):
        sha256.update(name.encode())
        sha256.update(tensors[name].contiguous().flatten().view(torch.uint8).numpy().data)
    return sha256.hexdigest()


def versions() -> str:
    """Of the libraries that a file depends on, as JSON."""
    return json.dumps({package: version(package) for package in ("torch", "timm", "safetensors")})
