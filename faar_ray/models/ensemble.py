"""Every task with a stream of its own from the image on: an ensemble of task LoRAs over one frozen backbone.

Axes: T tasks, B batch, H W space, C channels.
"""

from __future__ import annotations

from torch import Tensor, nn

from faar_ray.adapters import TaskLinears
from faar_ray.models.multitask import MultiTaskModel
from faar_ray.models.swin.levels import Level
from faar_ray.models.vit.vit import MultiTaskViT


class StreamedLinear(nn.Module):
    """Task-specific linears over streams that lie one after the other in the batch axis."""

    def __init__(self, linears: TaskLinears) -> None:
        super().__init__()
        self.linears = linears
        linears.drop_own_streams = True

    def forward(self, x: Tensor) -> Tensor:
        """(T B, ..., I) -> (T B, ..., O)."""
        streams = x.unflatten(0, (len(self.linears), -1))
        out: Tensor = self.linears(streams).flatten(0, 1)
        return out


class TaskEnsemble(MultiTaskModel):
    """image -> {task: prediction}, T passes through the backbone in one batch; tasks share only what is not adapted."""

    def levels(self, image_B3HW: Tensor) -> list[Level]:
        """Each stage's map, (T, B, H', W', C')."""
        tasks = len(self.decoder.heads)
        pyramid = super().levels(image_B3HW.repeat(tasks, 1, 1, 1))
        return [Level(level.maps[0].unflatten(0, (tasks, -1)), level.deferred_linear) for level in pyramid]


class ViTEnsemble(TaskEnsemble, MultiTaskViT):
    """The same over a ViT."""
