"""Shared LoRA whose components are filtered over space on the paths of tasks: y_t = W x + b + s B (theta * (A u_t)).

`theta` is a 3x3 kernel per component (depthwise). Masks and shrinking act on components, those of `theta` included.

Axes: T tasks, N samples (images or windows), R components, P the 9 taps of a kernel, I in, O out, H W space, L tokens.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Mapping
from typing import Any, ClassVar

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from faar_ray.adapters.linear import AdaptedLinear, dropout_of
from faar_ray.adapters.low_rank import LoRA

SIDE = 3
TAPS = SIDE * SIDE
TINY = 1e-10
"""Added to the deviation of a kernel's taps (FilterNorm)."""


class FilteredLoRA(LoRA, ABC):
    """W' = W + s B A for the shared stream; tasks reuse A and B with filters between them."""

    @abstractmethod
    def filtered(self, low_TNRHW: Tensor) -> Tensor:
        """theta * (A u), (T, N, R, H, W), of the active components."""


class DynamicLoRA(FilteredLoRA):
    """theta made from each sample's own mean, by one generator for all tasks (TADFormer, dynamic task filter).

    v = mean over space of A u; w = K v + k; theta = sigma (w - mean) / (std + 1e-10) + mu over the taps of a component
    (FilterNorm by channel; unbiased deviation).
    """

    RANK_AXES: ClassVar[Mapping[str, tuple[int, ...]]] = {
        **LoRA.RANK_AXES, "generator_RPR": (0, 2), "offset_RP": (0,), "sigma_RP": (0,), "mu_RP": (0,)
    }  # fmt: skip

    def __init__(self, weight_OI: Tensor, rank: int, scale: float, tasks: int) -> None:
        super().__init__(weight_OI, rank, scale)
        conv: Any = nn.Conv2d(rank, TAPS * rank, kernel_size=1)
        self.generator_RPR = nn.Parameter(conv.weight.detach().view(rank, TAPS, rank))
        self.offset_RP = nn.Parameter(conv.bias.detach().view(rank, TAPS))
        self.sigma_RP = nn.Parameter(torch.randn(rank, TAPS) * 2**0.5 / SIDE)
        self.mu_RP = nn.Parameter(torch.randn(rank, TAPS))

    def kernels(self, low_TNRHW: Tensor) -> Tensor:
        """theta of every sample, (T, N, R, P)."""
        r = low_TNRHW.shape[2]
        with torch.autocast(low_TNRHW.device.type, enabled=False):
            v_TNR = low_TNRHW.to(self.mu_RP.dtype).mean((-2, -1))
            w: Tensor = torch.einsum("tnr,cpr->tncp", v_TNR, self.generator_RPR[:r, :, :r]) + self.offset_RP[:r]
            w = (w - w.mean(-1, keepdim=True)) / (w.std(-1, keepdim=True) + TINY)
            return w * self.sigma_RP[:r] + self.mu_RP[:r]

    def filtered(self, low_TNRHW: Tensor) -> Tensor:
        """Each sample's own kernels."""
        kernels = self.kernels(low_TNRHW).to(low_TNRHW.dtype).reshape(-1, 1, SIDE, SIDE)
        channels = low_TNRHW.flatten(0, 2)[None]
        return F.conv2d(channels, kernels, padding=SIDE // 2, groups=len(kernels)).view_as(low_TNRHW)


class StaticLoRA(FilteredLoRA):
    """theta and a bias per task, the same for all samples (TADFormer's release)."""

    RANK_AXES: ClassVar[Mapping[str, tuple[int, ...]]] = {**LoRA.RANK_AXES, "filter_TRP": (1,), "bias_TR": (1,)}

    def __init__(self, weight_OI: Tensor, rank: int, scale: float, tasks: int) -> None:
        super().__init__(weight_OI, rank, scale)
        convs: list[Any] = [nn.Conv2d(rank, rank, SIDE, groups=rank) for _ in range(tasks)]
        self.filter_TRP = nn.Parameter(torch.stack([conv.weight.detach().flatten(1) for conv in convs]))
        self.bias_TR = nn.Parameter(torch.stack([conv.bias.detach() for conv in convs]))

    def filtered(self, low_TNRHW: Tensor) -> Tensor:
        """One convolution per task; a component's bias is masked with it."""
        r = low_TNRHW.shape[2]
        bias_TR = self.bias_TR[:, :r] * self.mask_R[:r]
        channels = low_TNRHW.transpose(0, 1).flatten(1, 2)
        kernels = self.filter_TRP[:, :r].reshape(-1, 1, SIDE, SIDE)
        out: Tensor = F.conv2d(channels, kernels, bias_TR.flatten(), padding=SIDE // 2, groups=len(kernels))
        by_task: Tensor = out.unflatten(1, (-1, r)).transpose(0, 1)
        return by_task


BuildFiltered = Callable[[Tensor, int, float, int], FilteredLoRA]
"""(weight_OI, rank, scale, tasks) -> the adapter."""
FILTERS: Mapping[str, BuildFiltered] = {"dynamic": DynamicLoRA, "static": StaticLoRA}
"""By `tad.filter`."""


class FilteredLinear(AdaptedLinear):
    """A linear with a shared adapter, and in parts, for blocks whose task streams take some of them again."""

    adapter: FilteredLoRA

    def products(self, x: Tensor) -> tuple[Tensor, Tensor]:
        """W x + b, and x as the low-rank branch sees it: dropped in training."""
        return F.linear(x, self.base.weight, self.base.bias), F.dropout(x, dropout_of([self.adapter]))

    def shared(self, frozen: Tensor, dropped: Tensor) -> Tensor:
        """W x + b + s B A d(x), (..., O)."""
        A_RI, B_RO = self.adapter.masked_factors()
        return frozen + F.linear(dropped, A_RI) @ (self.adapter.scale * B_RO)

    def of_tasks(self, frozen: Tensor, own_TNLI: Tensor, grid: Any) -> Tensor:
        """W x + b + s B (theta * (A u_t)), (T, N, L, O).

        Args:
            frozen: W x + b of the shared stream, (N, L, O).
            own_TNLI: u, the tasks' own streams.
            grid: how tokens lie: `image` and `tokens` go from (..., L, R) to (..., R, H, W) and back.
        """
        A_RI, B_RO = self.adapter.masked_factors()
        low = grid.image(F.linear(own_TNLI, A_RI))
        filtered: Tensor = grid.tokens(self.adapter.filtered(low))
        return frozen + filtered @ (self.adapter.scale * B_RO)
