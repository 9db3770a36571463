"""Losses and gradients that are not finite, named by step and task or parameter.

To read a value is to wait until an accelerator has computed it, and then the accelerator waits for the next step's
first kernel. So on an accelerator the values of a step stay where they are, and are read together every `READ_EVERY`
steps and at an epoch's end: before ranks are decided and before a checkpoint is written.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from faar_ray.errors import FaarRayError

READ_EVERY = 50


class NonFiniteLoss(FaarRayError):
    """Training diverged; trying again gives the same."""


class NonFiniteGradient(FaarRayError):
    """Backward overflowed although the losses are finite, and no step would change anything any more."""


@dataclass(frozen=True, slots=True, eq=False)
class Noted:
    """What is to be read of a step: losses (T,), the norm of all gradients, and each one's largest entry (P,)."""

    step: int
    losses_T: Tensor
    norm: Tensor
    parameters: Sequence[nn.Parameter]
    largest_P: Tensor


class LateReader:
    """Keeps what steps note, unread."""

    def __init__(self, tasks: Sequence[str], model: nn.Module) -> None:
        self.tasks, self.model = tasks, model
        self._noted: list[Noted] = []

    def note(self, step: int, losses_T: Tensor, norm: Tensor, parameters: Sequence[nn.Parameter]) -> None:
        """Keep a step's values; read all, when `READ_EVERY` are kept.

        Raises:
            As `read`.
        """
        self._noted.append(Noted(step, losses_T, norm, parameters, largest_entries(parameters)))
        if len(self._noted) == READ_EVERY:
            self.read()

    def read(self) -> None:
        """See that all is finite, with one wait for the accelerator.

        Raises:
            NonFiniteLoss: naming the first bad step, and its task.
            NonFiniteGradient: naming the first bad step, and the parameter.
        """
        noted, self._noted = self._noted, []
        if not noted:
            return
        values = torch.stack([torch.cat([of.losses_T, of.norm[None]]) for of in noted]).tolist()
        for of, (*losses, norm) in zip(noted, values, strict=True):
            check_losses(of.step, self.tasks, losses)
            if not math.isfinite(norm):
                raise overflow(of.step, *worst(self.model, of.parameters, of.largest_P))


def check_losses(step: int, tasks: Sequence[str], losses: Sequence[float]) -> None:
    """See that every task's loss is finite.

    Raises:
        NonFiniteLoss: naming step and task.
    """
    for task, value in zip(tasks, losses, strict=True):
        if not math.isfinite(value):
            raise NonFiniteLoss(f"step {step}: the loss of {task} is {value}")


def overflow(step: int, name: str, largest: float) -> NonFiniteGradient:
    """The error of a step whose gradients have no finite norm."""
    what = f"is as large as {largest:.1e}" if math.isfinite(largest) else f"is {largest}"
    return NonFiniteGradient(f"step {step}: the losses are finite, but the gradient of {name} {what}")


def largest_entries(parameters: Sequence[nn.Parameter]) -> Tensor:
    """The largest absolute entry of each gradient, (P,); NaN where one is NaN."""
    return torch.stack(torch._foreach_norm([p.grad for p in parameters if p.grad is not None], math.inf))


def worst(model: nn.Module, parameters: Sequence[nn.Parameter], largest_P: Tensor) -> tuple[str, float]:
    """The model's first parameter whose gradient is not finite, else the one with the largest entry; and that entry."""
    largest = {id(p): value for p, value in zip(parameters, largest_P.tolist(), strict=True)}
    named = {name: largest[id(p)] for name, p in model.named_parameters() if id(p) in largest}
    name = next((name for name, value in named.items() if not math.isfinite(value)), "")
    name = name or max(named, key=lambda name: named[name])
    return name, named[name]
