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
    def metrics_device(self) -> torch.device:
        """Where metrics add up, so that all workers' counts can be gathered."""

    @property
    def rank(self) -> int:
        """0-based number of this process; 0 writes all files."""

    @property
    def world_size(self) -> int:
        """How many train together."""

    def all_reduce_sum(self, value: Tensor) -> Tensor:
        """The sum over all workers, without gradient."""

    def assert_same(self, what: str, value: Tensor) -> None:
        """Raise where workers hold different values."""

    def broadcast(self, value: Any) -> Any:
        """Worker 0's value, on every worker."""

    def all_gather(self, value: Any) -> list[Any]:
        """Every worker's value, on every worker."""

    def wrap_ddp(self, model: nn.Module) -> nn.Module:
        """What training calls, so that gradients are those of all workers; anew after parameters were replaced."""

    def no_sync(self, joined: nn.Module) -> AbstractContextManager[None]:
        """In it, backward leaves gradients with this worker: more parts of the step are to come."""


def on_rank_zero(runtime: Runtime, act: Callable[[], T]) -> T:
    """What worker 0 makes of it, on every worker; its fault too, or the others would wait for it for ever.

    Raises:
        FaarRayError: as worker 0 met it.
    """
    outcome: tuple[T | None, FaarRayError | None] = (None, None)
    if runtime.rank == 0:
        try:
            outcome = (act(), None)
        except FaarRayError as fault:
            outcome = (None, fault)
    made, fault_of_first = runtime.broadcast(outcome)
    if fault_of_first is not None:
        raise fault_of_first
    return cast(T, made)


class InProcess:
    """One worker: this process."""

    rank, world_size = 0, 1

    def __init__(self, device: str | torch.device | None = None) -> None:
        self.device = torch.device(device or ("cuda" if torch.cuda.is_available() else "cpu"))
        self.metrics_device = self.device
        if self.device.type == "cpu":
            keep_freed_memory()

    def all_reduce_sum(self, value: Tensor) -> Tensor:
        """The value itself."""
        return value

    def assert_same(self, what: str, value: Tensor) -> None:
        """Nobody to differ from."""

    def broadcast(self, value: Any) -> Any:
        """The value itself."""
        return value

    def all_gather(self, value: Any) -> list[Any]:
        """The value alone."""
        return [value]

    def wrap_ddp(self, model: nn.Module) -> nn.Module:
        """The model itself."""
        return model

    def no_sync(self, joined: nn.Module) -> AbstractContextManager[None]:
        """Nothing to hold back."""
        return nullcontext()
