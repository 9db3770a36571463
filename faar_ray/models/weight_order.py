"""Convolutional networks by the order of their layers: the n-th convolution is the n-th, whatever its name is."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any

from torch import Tensor, nn

State = dict[str, Tensor]


def by_order(weights: State, model: Any, *, eps: float) -> State:
    """EfficientNet and MobileNet by torchvision's names -> by those of timm's model of the same layers.

    The n-th convolution, norm or squeeze-and-excitation is timm's n-th. What is left over on either side keeps its
    name, and is named when it is loaded.

    Args:
        weights: by names that numbers order.
        model: timm's.
        eps: of the norms that the weights are of. Where timm's is another, the variances (which are never trained
            here) take up the difference, so that (x - mean) / sqrt(var + eps) stays what it was.
    """
    theirs = {name: value for name, value in weights.items() if name.startswith("features.")}
    ours: State = dict(model.state_dict())
    leaves: dict[str, str] = {}
    for kind in (_is_convolution, _is_norm, _is_excitation):
        of_kind = sorted((leaf for leaf in _leaves(theirs) if kind(leaf, theirs)), key=_in_order)
        leaves.update(zip(of_kind, (leaf for leaf in _leaves(ours) if kind(leaf, ours)), strict=False))

    moved = {_moved(name, leaves): value for name, value in weights.items()}
    for name, module in model.named_modules():
        variance = f"{name}.running_var"
        if isinstance(module, nn.BatchNorm2d) and variance in moved and module.eps != eps:
            moved[variance] = moved[variance] + (eps - module.eps)
    return moved


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
