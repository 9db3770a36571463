"""What task-specific last blocks share: linears that part the shared stream from those of the tasks.

Axes: T tasks, S streams in (1 until the first task-specific layer, then K), K streams out (the shared one first, if
it goes on, then T).
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, ClassVar

from torch import Tensor, nn

from faar_ray.adapters import Grid, SineLinears, TaskLinears


class TaskStreams(nn.Module):
    """Wraps a block (whose linears may carry shared adapters) and adds task-specific linears beside them.

    With `continues=False` (last stage) no shared stream leaves the block, so what would only serve it is not
    computed. With `shared_input=True` (MTLoRA's task path) the frozen weights see the shared stream only.
    """

    ORDER: ClassVar[Sequence[str]]
    """The layers as a block applies them."""

    def __init__(
        self,
        block: nn.Module,
        task_linears: Mapping[str, TaskLinears | SineLinears],
        continues: bool,
        *,
        shared_input: bool = False,
    ) -> None:
        super().__init__()
        self.block: Any = block
        self.task_linears = nn.ModuleDict(task_linears)
        self.continues = continues
        self.shared_input = shared_input
        self.last_layer = max(task_linears, key=self.ORDER.index)

    def linear(self, layer: str, module: nn.Module, x: Tensor, grid: Grid | None = None) -> Tensor:
        """(S, ..., I) -> (K, ..., O), or (S, ..., O) where all streams use the shared linear.

        Args:
            layer: its name.
            module: the shared linear.
            x: streams.
            grid: how tokens lie, for kernels of 3x3.
        """
        out: Tensor
        if layer not in self.task_linears:
            out = module(x)
            return out
        task_linears: Any = self.task_linears[layer]
        carried = self.continues or (self.shared_input and layer != self.last_layer)
        if self.shared_input:
            out = task_linears.on_shared_input(module if carried else None, x)
            return out
        grids = (grid,) if getattr(task_linears, "needs_grid", False) else ()
        out = task_linears.with_shared(module, x, *grids) if carried else task_linears(x, *grids)
        return out

    def parted(self, x: Tensor) -> tuple[Tensor | None, Tensor]:
        """The shared stream or None, and those of the tasks."""
        if not self.continues:
            return None, x
        shared, streams = x.split([1, len(x) - 1])  # its gradient is one concatenation; slices would each fill a whole
        return shared[0], streams
