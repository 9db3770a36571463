"""Batch normalisation whose statistics are those of all workers' images.

torch's SyncBatchNorm runs on CUDA only.
"""

from __future__ import annotations

from typing import Any

import torch
import torch.distributed as dist
from torch import Tensor, nn
from torch.autograd import Function
from torch.autograd.function import once_differentiable


class _Total(Function):
    """The sum over all workers, whose gradient is the sum of all workers' gradients."""

    @staticmethod
    def forward(ctx: Any, value: Tensor) -> Tensor:
        total = value.clone()
        dist.all_reduce(total)
        return total

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, gradient: Tensor) -> Tensor:
        total = gradient.clone()
        dist.all_reduce(total)
        return total


class BatchNorm(nn.BatchNorm2d):
    """`nn.BatchNorm2d`, statistics over all workers where torch.distributed is set up.

    Axes: B batch, C channels, H W space.
    """

    def forward(self, x_BCHW: Tensor) -> Tensor:
        """(B, C, H, W) -> the same."""
        if not (self.training and dist.is_available() and dist.is_initialized() and dist.get_world_size() > 1):
            return super().forward(x_BCHW)
        if x_BCHW.dtype in (torch.float16, torch.bfloat16):  # autocast: neither sums nor counts fit
            return self.forward(x_BCHW.float()).to(x_BCHW)
        axes = (0, 2, 3)
        count = x_BCHW.new_tensor(x_BCHW.numel() // x_BCHW.shape[1])
        dist.all_reduce(count)
        mean_C = _Total.apply(x_BCHW.sum(axes)) / count
        centred = x_BCHW - mean_C[:, None, None]
        variance_C = _Total.apply(centred.square().sum(axes)) / count
        self._follow(mean_C.detach(), variance_C.detach() * count / (count - 1))
        scale_C = torch.rsqrt(variance_C + self.eps) * self.weight
        return torch.addcmul(self.bias[:, None, None], centred, scale_C[:, None, None])

    @torch.no_grad()
    def _follow(self, mean_C: Tensor, variance_C: Tensor) -> None:
        assert self.momentum is not None
        for running, now in ((self.running_mean, mean_C), (self.running_var, variance_C)):
            assert running is not None
            running.lerp_(now.to(running), self.momentum)
        if self.num_batches_tracked is not None:
            self.num_batches_tracked.add_(1)
