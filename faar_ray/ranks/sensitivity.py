"""How much single entries of weights matter, smoothed over steps (AdaLoRA, section 3.2)."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor, nn


class Sensitivity:
    """Importance I = |w dL/dw| of every entry, and its uncertainty.

    Ibar <- beta1 Ibar + (1 - beta1) I;  Ubar <- beta2 Ubar + (1 - beta2) |I - Ibar|, with the new Ibar. An entry's
    score is Ibar Ubar. All parameters are taken in one go: an accelerator would wait for hundreds of small launches.
    """

    def __init__(self, parameters: Sequence[nn.Parameter], beta1: float, beta2: float) -> None:
        self.beta1, self.beta2 = beta1, beta2
        self.importance = [torch.zeros_like(p, requires_grad=False) for p in parameters]
        self.uncertainty = [torch.zeros_like(p, requires_grad=False) for p in parameters]

    @torch.no_grad()
    def observe(self, parameters: Sequence[nn.Parameter]) -> None:
        """Add a step: w as it is after the optimizer's step, dL/dw as it was before it.

        A parameter without a gradient, as of a task without labels in the step, has importance 0.
        """
        gradients = [torch.zeros_like(p) if p.grad is None else p.grad for p in parameters]
        now: list[Tensor] = list(torch._foreach_mul([p.detach() for p in parameters], gradients))
        torch._foreach_abs_(now)
        torch._foreach_mul_(self.importance, self.beta1)
        torch._foreach_add_(self.importance, now, alpha=1 - self.beta1)

        torch._foreach_sub_(now, self.importance)
        torch._foreach_abs_(now)
        torch._foreach_mul_(self.uncertainty, self.beta2)
        torch._foreach_add_(self.uncertainty, now, alpha=1 - self.beta2)

    def scores(self) -> list[Tensor]:
        """Ibar Ubar of every entry."""
        return list(torch._foreach_mul(self.importance, self.uncertainty))

    def keep(self, i: int, index_K: Tensor) -> None:
        """Keep these rows of parameter `i`, in this order."""
        for of_all in (self.importance, self.uncertainty):
            of_all[i] = of_all[i][index_K.to(of_all[i].device)].clone()

    def state_dict(self) -> dict[str, Any]:
        """Both averages of every parameter."""
        return {"importance": self.importance, "uncertainty": self.uncertainty}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Undo `state_dict`; shapes are those of the state."""
        like = self.importance[0] if self.importance else torch.empty(0)
        self.importance = [value.to(like, copy=True) for value in state["importance"]]
        self.uncertainty = [value.to(like, copy=True) for value in state["uncertainty"]]
