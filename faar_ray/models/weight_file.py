"""Backbone weights in files of other programs: which of a checkpoint's tensors they are, and by which names."""

from __future__ import annotations

import logging
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from safetensors import SafetensorError
from safetensors.torch import load_file
from torch import Tensor

from faar_ray.errors import DataError
from faar_ray.models.weight_onnx import is_onnx, read_onnx
from faar_ray.storage.torch_file import read_torch_file

WRAPPERS = ("_orig_mod", "module", "_fsdp_wrapped_module", "_checkpoint_wrapped_module")
"""What torch.compile, DDP, FSDP and activation checkpointing put into names, anywhere."""
CONTAINERS = (
    "model",
    "state_dict",
    "model_state",
    "model_state_dict",
    "module",
    "network",
    "net",
    "teacher",
    "student",
)
"""Keys and prefixes beneath which programs keep a model, the preferred ones first."""
ANCHORS = (
    "patch_embed.proj.weight",  # Swin, ViT
    "conv_stem.weight",  # EfficientNet, MobileNet
    "stem.0.weight",  # ConvNeXt
    "_conv_stem.weight",  # efficientnet_pytorch
    "features.0.0.weight",  # torchvision
    "conv_proj.weight",  # torchvision's ViT
    "downsample_layers.0.0.weight",  # Meta's ConvNeXt
    "embeddings.patch_embeddings.projection.weight",  # transformers' DINOv2
)
"""Weights of which every backbone has one; what stands before it in its name is the prefix of all of them."""
FOLDER_FILES = ("model.safetensors", "pytorch_model.bin")
log = logging.getLogger(__name__)


def read_weights(path: Path) -> dict[str, Tensor]:
    """A backbone's tensors by its own names, of a safetensors file or one of `torch.save`.

    Where a file holds several models, `CONTAINERS` tells which is taken; wrappers and prefixes leave the names. Beside
    a backbone with a prefix everything else, such as decoders, is left out.

    Raises:
        DataError: it cannot be read, holds something else, or several backbones of which none is preferred.
    """
    check_weight_file(path)
    state = _unwrapped(path, _read(path))
    names = {key: ".".join(part for part in key.split(".") if part not in WRAPPERS) for key in state}
    if len(set(names.values())) < len(names):
        raise DataError(f"backbone.checkpoint: {path}: has weights twice, with and without {' or '.join(WRAPPERS)}")
    tensors = {names[key]: value for key, value in state.items()}

    prefix = _prefix(path, [before for name in tensors if (before := _before_anchor(name)) is not None])
    return {name.removeprefix(prefix): value for name, value in tensors.items() if name.startswith(prefix)}


def other_weights(where: str, digest: str, now: str) -> str:
    """That a backbone was loaded with other weights than before.

    Args:
        where: the file.
        digest: of the weights that were trained on.
        now: of those that `where` has.
    """
    has = f"has others (sha256 {now[:12]})" if now else "has none"
    return f"was trained on other weights of the backbone (sha256 {digest[:12]}); {where} {has}"


def check_weight_file(path: Path) -> None:
    """Refuse what is no file, without reading it.

    Raises:
        DataError: no such file, a folder, or an empty file.
    """
    if path.is_dir():
        inside = next((path / name for name in FOLDER_FILES if (path / name).is_file()), None)
        hint = f" (did you mean {inside}?)" if inside else ""
        raise DataError(f"backbone.checkpoint: must be a file, {path} is a folder{hint}")
    if not path.is_file():
        raise DataError(f"backbone.checkpoint: no such file: {path}")
    if path.stat().st_size == 0:
        raise DataError(f"backbone.checkpoint: {path} is empty")


def _read(path: Path) -> Mapping[str, Any]:
    """What the file holds; its first bytes tell its format, whatever its name says."""
    try:
        with path.open("rb") as file:
            start = file.read(9)
        if is_onnx(start):
            return read_onnx(path)
        return load_file(path) if start[8:] == b"{" else read_torch_file(path, legacy=True)
    except (SafetensorError, OSError, DataError) as fault:
        reason = str(fault).removeprefix(f"{path}: ")
        raise DataError(f"backbone.checkpoint: {path} cannot be read as weights: {reason}") from None


def _unwrapped(path: Path, outer: Mapping[str, Any]) -> dict[str, Tensor]:
    """The tensors by name, from beneath the containers around them."""
    while not (outer and all(isinstance(value, Tensor) for value in outer.values())):
        inner = {str(key): value for key, value in outer.items() if isinstance(value, Mapping)}
        if not inner:
            raise DataError(f"backbone.checkpoint: {path}: must hold tensors by name, {_few(outer)}")
        outer = inner[_preferred(path, list(inner))]
    return {str(key): value for key, value in outer.items()}


def _before_anchor(name: str) -> str | None:
    """What stands before an anchor; None where the name is none."""
    prefixes = (name.removesuffix(anchor) for anchor in ANCHORS if f".{name}".endswith(f".{anchor}"))
    return next(prefixes, None)


def _prefix(path: Path, prefixes: list[str]) -> str:
    """What stands before a backbone's names; "" where nothing does, or no name is known."""
    if not prefixes or "" in prefixes:
        return ""
    return _preferred(path, prefixes)


def _preferred(path: Path, names: list[str]) -> str:
    """The one name, or the first by `CONTAINERS`."""

    def order(name: str) -> int:
        first = name.split(".")[0]
        return CONTAINERS.index(first) if first in CONTAINERS else len(CONTAINERS)

    first, *others = sorted(names, key=order)
    if others and order(first) == order(others[0]):
        raise DataError(
            f"backbone.checkpoint: {path}: holds several models ({', '.join(repr(name) for name in names[:5])}); "
            "save the backbone's alone"
        )
    if others:
        log.info("%s: %r is loaded, not %s", path, first, ", ".join(map(repr, others)))
    return first


def _few(outer: Mapping[str, Any]) -> str:
    if not outer:
        return "and is empty"
    odd = [f"{key} ({type(value).__name__})" for key, value in outer.items() if not isinstance(value, Tensor)]
    return f"got {', '.join(odd[:5])}"
