"""The `spectrum` section: flows that warp singular values."""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import Field

from faar_ray.config.section import Section

Cells = Annotated[int, Field(ge=2, le=256)]


class SpectrumConfig(Section):
    """DiTASK's monotone maps of singular values: CPAB flows on [0, 1]; read where adapter.kind is spectrum."""

    cells: Cells = Field(64, description="Cells of the velocity of a shared flow, which has a number less than cells.")
    task_cells: Cells = Field(4, description="The same of a task's flow.")
    warp: Literal["values", "index"] = Field(
        "values",
        description="What a flow moves: singular values over the largest of their matrix (the paper; by what they are "
        "scaled it does not say), or their positions, between which they are interpolated (the released code).",
    )
    init: Literal["identity", "uniform"] = Field(
        "identity",
        description="Where flows start: at the identity, or at numbers drawn from +-1/sqrt(cells - 1) (the released "
        "code), which do not leave the pretrained weights as they are.",
    )
    dead_qkv: bool = Field(
        False,
        description="Hold and count the tasks' flows on qkv of every block too, which the released code makes and "
        "never uses; nothing moves them.",
    )

    def cells_of(self, *, shared: bool) -> int:
        """Of a shared or of a task's flow."""
        return self.cells if shared else self.task_cells
