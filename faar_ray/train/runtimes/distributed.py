"""Several workers over torch.distributed: DDP for gradients, exact sums for counts, losses and metrics."""

from __future__ import annotations

from contextlib import AbstractContextManager
from typing import Any

import torch
import torch.distributed as dist
from torch import Tensor, nn
from torch.nn.parallel import DistributedDataParallel

from faar_ray.errors import FaarRayError
from faar_ray.models.unused import unused_parameters
from faar_ray.train.memory import keep_freed_memory


class Disagreement(FaarRayError):
    """Workers hold different values of what must be the same on all."""


class Distributed:
    """One of several workers; the process group exists already (Ray Train makes it, or a test).

    DDP averages gradients over workers. The loop multiplies its loss by their number, so that they become the
    gradient of the sum of all workers' shares.
    """

    def __init__(self, device: torch.device) -> None:
        self.device = device
        self.rank, self.world_size = dist.get_rank(), dist.get_world_size()
        gloo = dist.get_backend() == "gloo"  # it gathers nothing on CUDA
        self.metrics_device = torch.device("cpu") if gloo else device
        if device.type == "cpu":
            keep_freed_memory()
        else:
            torch.cuda.set_device(device)

    def all_reduce_sum(self, value: Tensor) -> Tensor:
        """All-reduced sum."""
        out = value.detach().clone()
        dist.all_reduce(out)
        return out

    def assert_same(self, what: str, value: Tensor) -> None:
        """Compare by maximum and minimum.

        Raises:
            Disagreement: naming what differs.
        """
        most, least = value.detach().clone().to(self.device), value.detach().clone().to(self.device)
        dist.all_reduce(most, dist.ReduceOp.MAX)
        dist.all_reduce(least, dist.ReduceOp.MIN)
        if not torch.equal(most, least):
            raise Disagreement(f"workers disagree on {what}: this is a fault of the program")

    def broadcast(self, value: Any) -> Any:
        """Broadcast from worker 0."""
        box = [value]
        dist.broadcast_object_list(box, src=0, device=self.device)
        return box[0]

    def all_gather(self, value: Any) -> list[Any]:
        """Gathered everywhere."""
        boxes: list[Any] = [None] * self.world_size
        dist.all_gather_object(boxes, value)
        return boxes

    def wrap_ddp(self, model: nn.Module) -> nn.Module:
        """DDP around the model; it would wait for gradients of parameters that reach no output."""
        DistributedDataParallel._set_params_and_buffers_to_ignore_for_model(model, unused_parameters(model))
        return DistributedDataParallel(model, device_ids=[self.device.index] if self.device.type == "cuda" else None)

    def no_sync(self, wrapped: nn.Module) -> AbstractContextManager[None]:
        """DDP's no_sync."""
        assert isinstance(wrapped, DistributedDataParallel)
        context: AbstractContextManager[None] = wrapped.no_sync()
        return context
