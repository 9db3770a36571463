"""From a trial's adapter file, or a merged one, back to a model."""

from __future__ import annotations

import json
from dataclasses import dataclass
from pathlib import Path

import torch
from pydantic import ValidationError
from safetensors import SafetensorError, safe_open
from torch import Tensor

from faar_ray.config.trial import TrialConfig
from faar_ray.errors import DataError
from faar_ray.export.adapter_file import FORMAT, digest
from faar_ray.models import MultiTaskModel, adapter_list, build_model, trained_state
from faar_ray.models.weight_file import other_weights
from faar_ray.models.weight_packages import located
from faar_ray.ranks import shrink

CHECKPOINT_HELP = "the backbone's weights, if they are not where backbone.checkpoint says"
NAME_ANEW = "name the file of weights that it was trained on by --checkpoint FILE"


@dataclass(frozen=True)
class AdapterFile:
    """What `adapter.safetensors` holds."""

    config: TrialConfig
    ranks: dict[str, int]
    tensors: dict[str, Tensor]
    weights_digest: str = ""
    """Of the weights that the frozen backbone had; "" where none were loaded, or an older version wrote the file."""


def read_adapter_file(path: Path) -> AdapterFile:
    """Read without building anything.

    Raises:
        DataError: not there, damaged, or no adapter file of this package.
    """
    tensors, metadata = read_tensors(path)
    if metadata.get("format") != FORMAT:
        raise DataError(f"{path}: must be an adapter file ({FORMAT}), got format {metadata.get('format')!r}")
    if metadata.get("sha256", digest(tensors)) != digest(tensors):
        raise DataError(f"{path}: damaged: its values are not the ones that were written")
    try:
        config = TrialConfig.model_validate_json(metadata["config"])
        ranks = {str(site): int(rank) for site, rank in json.loads(metadata["ranks"]).items()}
    except (KeyError, ValueError, ValidationError) as fault:
        raise DataError(f"{path}: its metadata cannot be read: {fault}") from fault
    return AdapterFile(config, ranks, tensors, metadata.get("weights", ""))


def read_tensors(path: Path) -> tuple[dict[str, Tensor], dict[str, str]]:
    """Tensors and metadata of a safetensors file.

    Raises:
        DataError: not there, or damaged.
    """
    if not path.is_file():
        raise DataError(f"{path}: no such file; a trial writes it after its last epoch")
    try:
        with safe_open(path, framework="pt") as file:
            return {name: file.get_tensor(name) for name in file.keys()}, dict(file.metadata() or {})  # noqa: SIM118
    except SafetensorError as fault:
        raise DataError(f"{path}: cannot be read as safetensors: {fault}") from fault


def load_model(file: AdapterFile, source: Path, checkpoint: Path | None = None) -> MultiTaskModel:
    """The trained model at its final ranks, ready to predict.

    Args:
        file: the adapters and what was trained beside them.
        source: where `file` was read.
        checkpoint: the frozen weights, if they are not where the config says.

    Raises:
        ConfigError: the frozen weights are of a Python package that is not installed.
        DataError: the file does not fit the model of its own config, or the frozen weights are missing or others than
            those that it was trained on.
    """
    config = file.config
    if checkpoint is not None and not (config.backbone.pretrained or config.backbone.checkpoint):
        raise DataError(f"{source}: was trained on the backbone as it is initialised, so --checkpoint must be left out")
    if checkpoint is not None:
        config = config.with_checkpoint(str(checkpoint))
    elif config.backbone.checkpoint is not None and not located(config.backbone.checkpoint).exists():
        raise DataError(f"{source}: backbone.checkpoint: {config.backbone.checkpoint} is gone; {NAME_ANEW}")
    model = build_model(config)
    if file.weights_digest not in ("", model.weights_digest):
        where = config.backbone.checkpoint or f"{config.backbone.name} as it comes now"
        raise DataError(f"{source}: {other_weights(where, file.weights_digest, model.weights_digest)}; {NAME_ANEW}")
    for adapter in adapter_list(model):
        rank = file.ranks.get(adapter.site.place)
        if rank is None:
            raise DataError(f"{source}: has no rank for {adapter.site.place}")
        shrink(adapter, torch.arange(rank))
    fill(model, file.tensors, set(trained_state(model)), source)
    return model.eval()


def fill(model: MultiTaskModel, tensors: dict[str, Tensor], needed: set[str], source: Path) -> None:
    """Load tensors into a model of the same shapes; `needed` names must be among them.

    Raises:
        DataError: names or shapes differ.
    """
    state = model.state_dict()
    odd = sorted((needed - tensors.keys()) | (tensors.keys() - state.keys()))
    odd += sorted(name for name in state.keys() & tensors.keys() if state[name].shape != tensors[name].shape)
    if odd:
        raise DataError(f"{source}: does not fit the model of its config: {', '.join(odd[:5])} ({len(odd)} differ)")
    model.load_state_dict(tensors, strict=False)
