"""Where a trial runs: the seam between the training loop and one process or many."""

from __future__ import annotations

from collections.abc import Callable
from contextlib import AbstractContextManager, nullcontext
from typing import Any, ParamSpec, Protocol, TypeVar, cast

import torch
from torch import Tensor, nn

from faar_ray.errors import FaarRayError
from faar_ray.train.memory import keep_freed_memory

T = TypeVar("T")
P = ParamSpec("P")


class Runtime(Protocol):
    """What the training loop needs of the process or processes it runs in."""

    @property
    def device(self) -> torch.device:
        """Device of the model and its batches."""

    @property
    def metrics_device(self) -> torch.device:
        """Device of the metrics' counts, on which all workers' counts can be gathered."""

    @property
    def rank(self) -> int:
        """0-based number of this process; 0 writes all files."""

    @property
    def world_size(self) -> int:
        """How many train together."""

    def all_reduce_sum(self, value: Tensor) -> Tensor:
        """The sum over all workers, without gradient."""

    def assert_same(self, what: str, value: Tensor) -> None:
        """Raise if workers hold different values; `what` names them."""

    def broadcast(self, value: Any) -> Any:
        """Worker 0's value, on every worker."""

    def all_gather(self, value: Any) -> list[Any]:
        """Every worker's value, on every worker."""

    def wrap_ddp(self, model: nn.Module) -> nn.Module:
        """The module to train, whose gradients are those of all workers; made anew after parameters were replaced."""

    def no_sync(self, wrapped: nn.Module) -> AbstractContextManager[None]:
        """A context in which backward exchanges no gradients, for all micro-batches but a step's last."""


def on_rank_zero(runtime: Runtime, act: Callable[P, T], *args: P.args, **kwargs: P.kwargs) -> T:
    """Call on rank 0 only; every rank gets the result, or the error, else the others would wait for ever.

    Raises:
        FaarRayError: as raised on rank 0.
    """
    outcome: tuple[T | None, FaarRayError | None] = (None, None)
    if runtime.rank == 0:
        try:
            outcome = (act(*args, **kwargs), None)
        except FaarRayError as error:
            outcome = (None, error)

    result, error_of_zero = runtime.broadcast(outcome)
    if error_of_zero is not None:
        raise error_of_zero
    return cast(T, result)


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
        """Nothing to compare with."""

    def broadcast(self, value: Any) -> Any:
        """The value itself."""
        return value

    def all_gather(self, value: Any) -> list[Any]:
        """The value alone."""
        return [value]

    def wrap_ddp(self, model: nn.Module) -> nn.Module:
        """The model itself."""
        return model

    def no_sync(self, wrapped: nn.Module) -> AbstractContextManager[None]:
        """An empty context."""
        return nullcontext()
