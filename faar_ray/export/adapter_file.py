"""`adapter.safetensors`: all that was trained, at its final ranks, and what is needed to build it again."""

from __future__ import annotations

import json
from importlib.metadata import version
from pathlib import Path

from safetensors.torch import save_file

from faar_ray.config import TrialConfig
from faar_ray.models import MultiTaskModel, adapter_list, trained_state
from faar_ray.tracking.atomic import replacing


def write_adapter(path: Path, model: MultiTaskModel, config: TrialConfig) -> None:
    """Factors, magnitudes, heads and the backbone's own trained weights; config, ranks and versions as metadata."""
    tensors = {name: tensor.detach().cpu().contiguous() for name, tensor in trained_state(model).items()}
    ranks = {
        "/".join(map(str, (s.stage, s.block, s.layer, s.task))): a.rank for a in adapter_list(model) if (s := a.site)
    }
    metadata = {
        "format": "faar_ray.adapter.1",
        "config": config.model_dump_json(),
        "ranks": json.dumps(ranks),
        "versions": json.dumps({package: version(package) for package in ("torch", "timm", "safetensors")}),
    }
    with replacing(path) as scratch:
        save_file(tensors, scratch, metadata=metadata)
