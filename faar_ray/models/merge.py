"""Folding adapters into plain linears after training: nothing of them is left in the forward pass.

The two kinds of streams of a stage's last block stay: shared and task. So do the tokens of tasks that the attention
sees (Free Sinewich): frequencies are made of them as they are learned, whatever the image.

Axes: T tasks, S streams in (1, T or 1 + T), I in, O out.
"""

from __future__ import annotations

import copy
from collections.abc import Mapping
from typing import TypeVar

import torch
from torch import Tensor, nn

from faar_ray.adapters import AdaptedLinear, Adapter, Grid, SineHidden, SineLinears, TaskLinears
from faar_ray.adapters.tad.prompts import TaskPrompts
from faar_ray.decoders import BiasOnly, SpectralLevel
from faar_ray.errors import ConfigError
from faar_ray.models.multitask import MultiTaskModel
from faar_ray.models.task_streams import TaskStreams
from faar_ray.models.unused import drop_unused


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

    def with_shared(self, shared: nn.Module, x: Tensor) -> Tensor:
        """The shared linear's stream first, (S, ..., I) -> (1 + T, ..., O); S is 1 or 1 + T."""
        return torch.cat([shared(x[:1]), self(x if len(x) == 1 else x[1:])])


class PlainConvolutions(nn.Module):
    """One plain 3x3 convolution over the token grid per task."""

    needs_grid = True

    def __init__(self, convolutions: Mapping[str, nn.Conv2d]) -> None:
        super().__init__()
        self.convolutions = nn.ModuleDict(convolutions)

    def forward(self, x: Tensor, grid: Grid) -> Tensor:
        """(S, B, L, I) -> (T, B, L, O); S is 1 or T."""
        images = grid.image(x)
        outputs = [conv(images[t if len(x) > 1 else 0]) for t, conv in enumerate(self.convolutions.values())]
        return grid.tokens(torch.stack(outputs))

    def with_shared(self, shared: nn.Module, x: Tensor, grid: Grid) -> Tensor:
        """The shared linear's stream first, (S, ..., I) -> (1 + T, ..., O); S is 1 or 1 + T."""
        return torch.cat([shared(x[:1]), self(x if len(x) == 1 else x[1:], grid)])


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
    if any(isinstance(module, TaskStreams) and module.shared_input for module in model.modules()):
        raise ConfigError(
            "placement.task_path: shared cannot be merged: the frozen weight sees the shared stream and the change the "
            "task's, so no single weight does the work of both; train with placement.task_path: own to merge"
        )
    if isinstance(model.prompts, TaskPrompts):
        raise ConfigError(
            "placement.task_path: prompted cannot be merged: filters of tasks are made from their input, and prompts "
            "take part in the attention, so no weights do their work; train with placement.task_path: own to merge"
        )

    merged = copy.deepcopy(model)
    kept = tasks if task is None or needs_all_tasks(model) else [task]

    # task kernels contain phi with its shared adapter, so they are folded while that adapter is still there
    _fold_sines(merged.backbone, kept)
    _fold(merged.backbone, kept)
    _fold_hidden(merged)
    _keep_heads(merged, kept)
    drop_unused(merged)
    merged.clock = None
    return merged


def needs_all_tasks(model: MultiTaskModel) -> bool:
    """Whether XT-Cons makes a task's prediction depend on the maps of the others."""
    return any(len(level.consensus) for level in _spectral_levels(model))


def _fold(module: nn.Module, tasks: list[str]) -> None:
    """Replace adapted linears by plain ones, in place and recursively."""
    for name, child in list(module.named_children()):
        if isinstance(child, AdaptedLinear):
            setattr(module, name, folded(child.base, child.adapter))
        elif isinstance(child, TaskLinears):
            linears = {task: folded(child.base, adapter) for task, adapter in child.of_tasks() if task in tasks}
            _replace(module, name, PlainLinears(linears))
        else:
            _fold(child, tasks)


@torch.no_grad()
def _fold_sines(module: nn.Module, tasks: list[str]) -> None:
    """Replace sine-modulated linears by plain linears or convolutions, one per task."""
    for name, child in list(module.named_children()):
        if not isinstance(child, SineLinears):
            _fold_sines(child, tasks)
            continue

        bias_O = child.weight_and_bias()[1]
        weights = dict(zip(child.clock.tasks, child.task_weights().unbind(0), strict=True))
        if child.needs_grid:
            plain: nn.Module = PlainConvolutions({task: _convolution(weights[task], bias_O) for task in tasks})
        else:
            plain = PlainLinears({task: _linear(weights[task], bias_O) for task in tasks})
        _replace(module, name, plain)


@torch.no_grad()
def _fold_hidden(model: MultiTaskModel) -> None:
    """Give each head its own hidden layer, a 1x1 convolution, in place of the sine-modulated base of all."""
    if not isinstance(model.decoder.hidden, SineHidden):
        return
    for task, weight_OI in model.decoder.hidden.weights().items():
        head = model.decoder.head(task)
        assert isinstance(head.hidden, BiasOnly)
        head.hidden = _convolution(weight_OI[..., None, None], head.hidden.bias)
    model.decoder.hidden = None


def _linear(weight_OI: Tensor, bias_O: Tensor | None) -> nn.Linear:
    outs, ins = weight_OI.shape
    return _filled(nn.Linear(ins, outs, bias=bias_O is not None), weight_OI, bias_O)


def _convolution(weight: Tensor, bias_O: Tensor | None) -> nn.Conv2d:
    outs, ins, side, _ = weight.shape
    return _filled(nn.Conv2d(ins, outs, side, padding=side // 2, bias=bias_O is not None), weight, bias_O)


Plain = TypeVar("Plain", nn.Linear, nn.Conv2d)


def _filled(module: Plain, weight: Tensor, bias_O: Tensor | None) -> Plain:
    module.to(weight.device, weight.dtype)
    module.weight.copy_(weight)
    if bias_O is not None and module.bias is not None:
        module.bias.copy_(bias_O)
    return module.requires_grad_(False)


def _replace(module: nn.Module, name: str, child: nn.Module) -> None:
    if isinstance(module, nn.ModuleDict):
        module[name] = child
    else:
        setattr(module, name, child)


@torch.no_grad()
def folded(base: nn.Linear, adapter: Adapter) -> nn.Linear:
    """W' as a plain linear; the bias as it was."""
    return _linear(adapter.adapt(base.weight), base.bias)


def _keep_heads(model: MultiTaskModel, tasks: list[str]) -> None:
    for task in set(model.decoder.heads) - set(tasks):
        del model.decoder.heads[task]
        for level in _spectral_levels(model):
            level.filters.pop(task)


def _spectral_levels(model: MultiTaskModel) -> list[SpectralLevel]:
    return [module for module in model.decoder.modules() if isinstance(module, SpectralLevel)]
