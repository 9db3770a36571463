"""From the names of other programs' weights to timm's: torchvision, efficientnet_pytorch.

timm's own filters, which run after this, know the files of Microsoft's Swin, Meta's ConvNeXt and DINOv2.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable, Mapping
from typing import Any

from torch import Tensor

State = dict[str, Tensor]
Rename = Mapping[str, str]
"""Regular expression -> what takes its place; in this order."""

EFFICIENTNET_PYTORCH: Rename = {
    r"^_conv_stem\.": "features.0.0.",
    r"^_bn0\.": "features.0.1.",
    r"^_blocks\.(\d+)\._expand_conv\.": r"features.1.\1.0.0.",
    r"^_blocks\.(\d+)\._bn0\.": r"features.1.\1.0.1.",
    r"^_blocks\.(\d+)\._depthwise_conv\.": r"features.1.\1.1.0.",
    r"^_blocks\.(\d+)\._bn1\.": r"features.1.\1.1.1.",
    r"^_blocks\.(\d+)\._se_reduce\.": r"features.1.\1.2.fc1.",
    r"^_blocks\.(\d+)\._se_expand\.": r"features.1.\1.2.fc2.",
    r"^_blocks\.(\d+)\._project_conv\.": r"features.1.\1.3.0.",
    r"^_blocks\.(\d+)\._bn2\.": r"features.1.\1.3.1.",
    r"^_conv_head\.": "features.2.0.",
    r"^_bn1\.": "features.2.1.",
    r"^_fc\.": "classifier.",
}
"""To names as torchvision's, whose numbers tell the order."""


def timm_names(weights: State, model: Any) -> State:
    """The weights by the names that a timm model has; unchanged where they are of none of the known formats."""
    keys = model.state_dict().keys()
    for mark, convert in FORMATS.items():
        if mark in weights and mark not in keys:
            return convert(weights, model)
    return weights


def renamed(weights: State, rename: Rename) -> State:
    """The weights with every expression applied to every name."""
    return {_renamed(name, rename): value for name, value in weights.items()}


def _renamed(name: str, rename: Rename) -> str:
    for pattern, replacement in rename.items():
        name = re.sub(pattern, replacement, name)
    return name


def _from_efficientnet_pytorch(weights: State, model: Any) -> State:
    return _from_torchvision_convnet(renamed(weights, EFFICIENTNET_PYTORCH), model)


def _from_torchvision_convnet(weights: State, model: Any) -> State:
    """EfficientNet, MobileNet: the n-th convolution, norm or squeeze-and-excitation is timm's n-th.

    What is left over on either side is named when it is loaded.
    """
    theirs = {name: value for name, value in weights.items() if name.startswith("features.")}
    ours: State = {name: value for name, value in model.state_dict().items()}
    leaves: dict[str, str] = {}
    for kind in (_is_convolution, _is_norm, _is_excitation):
        of_kind = sorted((leaf for leaf in _leaves(theirs) if kind(leaf, theirs)), key=_in_order)
        leaves.update(zip(of_kind, (leaf for leaf in _leaves(ours) if kind(leaf, ours)), strict=False))
    return {_moved(name, leaves): value for name, value in weights.items()}


def _leaves(state: Iterable[str]) -> list[str]:
    """Modules that hold a weight."""
    return [name.removesuffix(".weight") for name in state if name.endswith(".weight")]


def _is_excitation(leaf: str, state: State) -> bool:
    return leaf.rpartition(".")[0].endswith(".se") or leaf.endswith((".fc1", ".fc2"))


def _is_convolution(leaf: str, state: State) -> bool:
    return state[f"{leaf}.weight"].ndim == 4 and not _is_excitation(leaf, state)


def _is_norm(leaf: str, state: State) -> bool:
    return f"{leaf}.running_mean" in state


def _in_order(name: str) -> list[tuple[int, str]]:
    return [(int(part), "") if part.isdigit() else (-1, part) for part in name.split(".")]


def _moved(name: str, leaves: Mapping[str, str]) -> str:
    leaf, _, last = name.rpartition(".")
    return f"{leaves[leaf]}.{last}" if leaf in leaves else name


FORMATS: dict[str, Callable[[State, Any], State]] = {
    "_conv_stem.weight": _from_efficientnet_pytorch,
    "features.0.0.weight": _from_torchvision_convnet,
}
"""A name that only files of a format have -> how they are converted."""
