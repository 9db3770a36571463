"""Folding adapters into plain linears after training: nothing of them is left in the forward pass.

The two kinds of streams of a stage's last block stay: shared and task.

Axes: T tasks, S streams in (1, T or 1 + T), I in, O out.
"""

from __future__ import annotations

import copy
from collections.abc import Mapping

import torch
from torch import Tensor, nn

from faar_ray.adapters import AdaptedLinear, LowRankFactors, TaskLinears
from faar_ray.decoders import SpectralLevel
from faar_ray.errors import ConfigError
from faar_ray.models.multitask import MultiTaskModel
from faar_ray.models.task_block import TaskBlock


class PlainLinears(nn.Module):
    """One plain linear per task."""

    def __init__(self, linears: Mapping[str, nn.Linear]) -> None:
        super().__init__()
        self.linears = nn.ModuleDict(linears)

    def __len__(self) -> int:
        """How many tasks."""
        return len(self.linears)

    def forward(self, x: Tensor) -> Tensor:
        """(S, ..., I) -> (T, ..., O); S is 1 or T."""
        return torch.stack([linear(x[t if len(x) > 1 else 0]) for t, linear in enumerate(self.linears.values())])

    def beside(self, shared: nn.Module, x: Tensor) -> Tensor:
        """The shared linear's stream first, (S, ..., I) -> (1 + T, ..., O); S is 1 or 1 + T."""
        return torch.cat([shared(x[:1]), self(x if len(x) == 1 else x[1:])])


def merge(model: MultiTaskModel, task: str | None = None) -> MultiTaskModel:
    """A copy of the model with every adapter folded in, at its full current rank.

    Args:
        model: it is left as it is.
        task: keep this task only; None keeps all. Where XT-Cons makes a task look at the others' maps, all stay.

    Raises:
        ConfigError: the task is none of the model's, or its path cannot be merged (`placement.task_path: shared`).
    """
    tasks = list(model.decoder.heads)
    if task is not None and task not in tasks:
        raise ConfigError(f"task: must be one of {', '.join(tasks)}, got {task!r}")
    if any(isinstance(module, TaskBlock) and module.common for module in model.modules()):
        raise ConfigError(
            "placement.task_path: shared cannot be merged: the frozen weight sees the shared stream and the change the "
            "task's, so no single weight does the work of both; train with placement.task_path: own to merge"
        )
    merged = copy.deepcopy(model)
    kept = tasks if task is None or needs_all_tasks(model) else [task]
    _fold(merged.backbone, kept)
    _keep_heads(merged, kept)
    return merged


def needs_all_tasks(model: MultiTaskModel) -> bool:
    """Whether XT-Cons makes a task's prediction depend on the maps of the others."""
    return any(len(level.consensus) for level in _spectral_levels(model))


def _fold(module: nn.Module, tasks: list[str]) -> None:
    for name, child in list(module.named_children()):
        if isinstance(child, AdaptedLinear):
            setattr(module, name, folded(child.base, child.adapter))
        elif isinstance(child, TaskLinears):
            own = {task: folded(child.base, adapter) for task, adapter in child.of_tasks() if task in tasks}
            _replace(module, name, PlainLinears(own))
        else:
            _fold(child, tasks)


def _replace(module: nn.Module, name: str, child: nn.Module) -> None:
    if isinstance(module, nn.ModuleDict):
        module[name] = child
    else:
        setattr(module, name, child)


@torch.no_grad()
def folded(base: nn.Linear, adapter: LowRankFactors) -> nn.Linear:
    """W' as a plain linear; the bias as it was."""
    linear = nn.Linear(base.in_features, base.out_features, bias=base.bias is not None, device=base.weight.device)
    linear.to(base.weight.dtype)
    linear.weight.copy_(adapter.adapt(base.weight))
    if base.bias is not None:
        linear.bias.copy_(base.bias)
    return linear.requires_grad_(False)


def _keep_heads(model: MultiTaskModel, tasks: list[str]) -> None:
    for task in set(model.decoder.heads) - set(tasks):
        del model.decoder.heads[task]
        for level in _spectral_levels(model):
            level.filters.pop(task)


def _spectral_levels(model: MultiTaskModel) -> list[SpectralLevel]:
    return [module for module in model.decoder.modules() if isinstance(module, SpectralLevel)]
