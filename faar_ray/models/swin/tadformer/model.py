"""The pyramid of a Swin with task prompts (TADFormer)."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from torch import Tensor

from faar_ray.adapters.tad.prompts import TaskPrompts
from faar_ray.models.multitask import MultiTaskModel
from faar_ray.models.swin.levels import Level, swin_levels
from faar_ray.models.swin.tadformer.blocks import PromptedTaskBlock, run_prompted
from faar_ray.models.swin.token_layout import Layout, reorder


class PromptedSwin(MultiTaskModel):
    """image -> {task: prediction}; prompts go with the shared stream from block to block."""

    def levels(self, image_B3HW: Tensor) -> list[Level]:
        """Each stage's map, (T, B, H', W', C'): merged, at strides 8, 16, 32, 32, or not, at 4, 8, 16, 32."""
        assert isinstance(self.prompts, TaskPrompts)
        passing = _Pass(self.prompts, len(image_B3HW))
        return swin_levels(self.backbone, image_B3HW, merged=self.merged, run=passing.stage)


class _Pass:
    """The prompts of one forward pass."""

    def __init__(self, prompts: TaskPrompts, batch: int) -> None:
        self.of_model, self.prompts_BTC, self.number = prompts, prompts.first(batch), 0

    def stage(self, blocks: Sequence[Any], x: Tensor, layout: Layout) -> tuple[Tensor, Tensor | None, Layout]:
        """All blocks of the next stage, as `swin_levels` wants them run."""
        for block in blocks:
            task_block = isinstance(block, PromptedTaskBlock)
            of_block = layout.windows(block.block if task_block else block)
            x, layout = reorder(x, layout, of_block), of_block
            if not task_block:
                x, self.prompts_BTC = run_prompted(block, x, self.prompts_BTC, layout)
                continue
            gate = self.of_model.gates_S[self.number]
            shared, streams, prompts = block.run(x, self.prompts_BTC, layout, gate)
            if prompts is not None:
                self.prompts_BTC = self.of_model.lifted(prompts, self.number)
            self.number += 1
            return x if shared is None else shared, streams, layout
        raise AssertionError("the last block of a stage makes the streams of tasks")
