"""Task losses divided by their running means, so that every task pulls with its weight alone (`optim.loss_norm`)."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from faar_ray.config.trial import OptimConfig

SMALLEST = 1e-12
"""Of what a loss is divided by: a loss that is 0 for good stays 0."""


class LossNorm:
    """EMA of each task's loss over the steps with labels of it, corrected for its start at 0.

    A step is divided by the mean of the steps before it: the loss of a whole step is known only once all its parts,
    on all workers, are computed. A task's first step with labels has no mean before it and is divided by 1. Values stay
    on the device, and are computed from losses over all workers, so that all hold the same.

    Axes: T tasks.
    """

    def __init__(self, tasks: int, beta: float, device: torch.device | str | None = None) -> None:
        self.beta = beta
        self.ema_T = torch.zeros(tasks, dtype=torch.float64, device=device)
        self.weight_T = torch.zeros(tasks, dtype=torch.float64, device=device)
        """What the EMA of 1 in place of each loss is: 1 - beta^count."""

    def divisors(self) -> Tensor:
        """What each task's loss is divided by, (T,), without gradient."""
        mean_T = self.ema_T / self.weight_T.clamp_min(SMALLEST)
        return mean_T.clamp_min(SMALLEST).where(self.weight_T > 0, 1.0)

    def observe(self, losses_T: Tensor, labelled_T: Tensor) -> None:
        """Move the means of the tasks that have labels in a step.

        Args:
            losses_T: raw losses over the whole step.
            labelled_T: which tasks have labels in it.
        """
        moved_T = self.ema_T.lerp(losses_T.detach().double(), 1 - self.beta)
        self.ema_T = moved_T.where(labelled_T, self.ema_T)
        ones_T = self.weight_T.lerp(torch.ones_like(self.weight_T), 1 - self.beta)
        self.weight_T = ones_T.where(labelled_T, self.weight_T)

    def state_dict(self) -> dict[str, Any]:
        """The means."""
        return {"ema": self.ema_T, "weight": self.weight_T}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Undo `state_dict`."""
        self.ema_T = state["ema"].to(self.ema_T, copy=True)
        self.weight_T = state["weight"].to(self.weight_T, copy=True)


def build_loss_norm(config: OptimConfig, tasks: int, device: torch.device) -> LossNorm | None:
    """What `optim.loss_norm` says; None: losses are taken as they are."""
    return LossNorm(tasks, config.loss_norm_beta, device) if config.loss_norm == "running_mean" else None
