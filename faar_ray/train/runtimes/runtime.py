"""Where a trial runs: the seam between the training loop and one process or many."""

from __future__ import annotations

from collections.abc import Callable
from contextlib import AbstractContextManager, nullcontext
from typing import Any, Protocol, TypeVar, cast

import torch
from torch import Tensor, nn

from faar_ray.errors import FaarRayError
from faar_ray.train.memory import keep_freed_memory

Forward = Callable[[Tensor], dict[str, Tensor]]
T = TypeVar("T")


class Runtime(Protocol):
    """What the loop asks of its surroundings."""

    @property
    def device(self) -> torch.device:
        """Where the model and its batches live."""

    @property
    def counts_on(self) -> torch.device:
        """Where metrics add up, so that all workers' counts can be gathered."""

    @property
    def worker(self) -> int:
        """0-based number of this process; 0 writes all files."""

    @property
    def workers(self) -> int:
        """How many train together."""

    def total(self, value: Tensor) -> Tensor:
        """The sum over all workers, without gradient."""

    def agree(self, what: str, value: Tensor) -> None:
        """Raise where workers hold different values."""

    def from_first(self, value: Any) -> Any:
        """Worker 0's value, on every worker."""

    def of_all(self, value: Any) -> list[Any]:
        """Every worker's value, on every worker."""

    def joined(self, model: nn.Module) -> nn.Module:
        """What training calls, so that gradients are those of all workers; anew after parameters were replaced."""

    def unsynced(self, joined: nn.Module) -> AbstractContextManager[None]:
        """In it, backward leaves gradients with this worker: more parts of the step are to come."""


def by_first(runtime: Runtime, act: Callable[[], T]) -> T:
    """What worker 0 makes of it, on every worker; its fault too, or the others would wait for it for ever.

    Raises:
        FaarRayError: as worker 0 met it.
    """
    outcome: tuple[T | None, FaarRayError | None] = (None, None)
    if runtime.worker == 0:
        try:
            outcome = (act(), None)
        except FaarRayError as fault:
            outcome = (None, fault)
    made, fault_of_first = runtime.from_first(outcome)
    if fault_of_first is not None:
        raise fault_of_first
    return cast(T, made)


class InProcess:
    """One worker: this process."""

    worker, workers = 0, 1

    def __init__(self, device: str | torch.device | None = None) -> None:
        self.device = torch.device(device or ("cuda" if torch.cuda.is_available() else "cpu"))
        self.counts_on = self.device
        if self.device.type == "cpu":
            keep_freed_memory()

    def total(self, value: Tensor) -> Tensor:
        """The value itself."""
        return value

    def agree(self, what: str, value: Tensor) -> None:
        """Nobody to differ from."""

    def from_first(self, value: Any) -> Any:
        """The value itself."""
        return value

    def of_all(self, value: Any) -> list[Any]:
        """The value alone."""
        return [value]

    def joined(self, model: nn.Module) -> nn.Module:
        """The model itself."""
        return model

    def unsynced(self, joined: nn.Module) -> AbstractContextManager[None]:
        """Nothing to hold back."""
        return nullcontext()
