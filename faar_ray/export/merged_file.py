"""A merged model as one safetensors file: every weight of it, and no adapter."""

from __future__ import annotations

from pathlib import Path

from safetensors.torch import save_file

from faar_ray.config.trial import TrialConfig
from faar_ray.errors import ConfigError, DataError
from faar_ray.export.adapter_file import versions
from faar_ray.export.read import fill, read_tensors
from faar_ray.models import MultiTaskModel, build_model, merge
from faar_ray.models.backbone import family_of
from faar_ray.storage.atomic import atomic_write

FORMAT = "faar_ray.merged.1"


def write_merged(path: Path, model: MultiTaskModel, config: TrialConfig, task: str) -> list[str]:
    """Merge and write; returns the tasks that the file predicts (more than one where XT-Cons ties them).

    Raises:
        ConfigError: the task is none of the model's, or its path cannot be merged.
    """
    if not family_of(config.backbone.name).merges:
        raise ConfigError(f"--merge: adapters in {config.backbone.name} cannot be folded into plain weights")
    merged = merge(model, task)
    tensors = {name: value.detach().cpu().contiguous() for name, value in merged.state_dict().items()}
    metadata = {"format": FORMAT, "config": config.model_dump_json(), "task": task, "versions": versions()}
    with atomic_write(path) as scratch:
        save_file(tensors, scratch, metadata=metadata)
    return list(merged.decoder.heads)


def read_merged(path: Path) -> MultiTaskModel:
    """The merged model of a file, ready to predict; needs no other weights.

    Raises:
        DataError: the file is missing, damaged, or of another kind.
    """
    tensors, metadata = read_tensors(path)
    if metadata.get("format") != FORMAT:
        raise DataError(f"{path}: must be a merged model ({FORMAT}), got format {metadata.get('format')!r}")
    config = TrialConfig.model_validate_json(metadata["config"])
    model = merge(build_model(config.without_weights()), metadata["task"])
    fill(model, tensors, set(model.state_dict()), path)
    return model.eval()
