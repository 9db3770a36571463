"""What every adapter of a linear is: where it sits, and the weight that it makes of the frozen one.

Axes: I in, O out.
"""

from __future__ import annotations

from dataclasses import dataclass

from torch import Tensor, nn

from faar_ray.adapters.fast.low_rank_update import LowRankUpdate


@dataclass(frozen=True, slots=True, order=True)
class Site:
    """Where an adapter sits: 0-based stage and block, layer, and the task it serves (or `shared`)."""

    stage: int
    block: int
    layer: str
    task: str

    @property
    def shared(self) -> bool:
        """Whether all tasks use it."""
        return self.task == "shared"

    @property
    def place(self) -> str:
        """Its name in files: `stage/block/layer/task`."""
        return f"{self.stage}/{self.block}/{self.layer}/{self.task}"


class Adapter(nn.Module):
    """Makes W' of a frozen W."""

    site: Site
    dropout = 0.0
    """Share of inputs that are zeroed in training; `adapted` does it."""
    drops_whole_input = False
    """In training y = W' d(x) + b, in place of W x + b + (W' - W) d(x)."""

    def adapt(self, weight_OI: Tensor) -> Tensor:
        """W', by plain autograd."""
        raise NotImplementedError

    def low_rank_update(self) -> LowRankUpdate | None:
        """The adapter as plain tensors, for the products of `fast.functional`; None where `adapt` is the only form."""
        return None

    def adapt_product(self, weight_OI: Tensor, product: Tensor, x: Tensor) -> Tensor:
        """W' x from W x' and x, where `low_rank_update` is one."""
        raise NotImplementedError
