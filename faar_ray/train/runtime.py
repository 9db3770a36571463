"""Where a trial runs: the seam between the training loop and one process or many."""

from __future__ import annotations

from typing import Protocol

import torch
from torch import Tensor

from faar_ray.train.allocator import keep_freed_memory


class Runtime(Protocol):
    """What the loop asks of its surroundings."""

    @property
    def device(self) -> torch.device:
        """Where the model and its batches live."""

    def sum(self, value: Tensor) -> Tensor:
        """The sum over all workers."""


class InProcess:
    """One worker: this process."""

    def __init__(self, device: str | torch.device | None = None) -> None:
        self.device = torch.device(device or ("cuda" if torch.cuda.is_available() else "cpu"))
        if self.device.type == "cpu":
            keep_freed_memory()

    def sum(self, value: Tensor) -> Tensor:
        """The value itself."""
        return value
