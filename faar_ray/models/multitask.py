"""One adapted backbone, one head per task.

Axes: T tasks, B batch, H W space, C channels, N outputs.
"""

from __future__ import annotations

from collections.abc import Sequence

from timm.models.swin_transformer import SwinTransformer
from torch import Tensor, nn

from faar_ray.adapters import DoRA, LowRankFactors, adapters_of
from faar_ray.models.task_block import TaskBlock


class MultiTaskModel(nn.Module):
    """image -> {task: prediction}; a task's features come from its own streams where it has them."""

    def __init__(self, backbone: SwinTransformer, heads: nn.ModuleDict, *, merged: bool = True) -> None:
        super().__init__()
        self.backbone = backbone
        self.heads = heads
        self.merged = merged

    def forward(self, image_B3HW: Tensor) -> dict[str, Tensor]:
        """(B, 3, H, W) -> {task: (B, N_task, H, W)}."""
        size = (image_B3HW.shape[-2], image_B3HW.shape[-1])
        pyramid = [level.movedim(-1, 2) for level in self.features(image_B3HW)]
        predictions = {}
        for t, (task, head) in enumerate(self.heads.items()):
            maps = [level[t if len(level) > 1 else 0] for level in pyramid]
            predictions[task] = head(maps, size)
        return predictions

    def features(self, image_B3HW: Tensor) -> list[Tensor]:
        """Each stage's map, (T or 1, B, H', W', C'): merged, at strides 8, 16, 32, 32, or not, at 4, 8, 16, 32."""
        stages = self.backbone.layers
        merges = [stage.downsample for stage in stages[1:]] if self.merged else []
        x = self.backbone.patch_embed(image_B3HW)
        pyramid = []
        for s, stage in enumerate(stages):
            x, streams = _run_blocks(stage.blocks, x if s == 0 else stage.downsample(x))
            if s < len(merges):
                streams = merges[s](streams.flatten(0, 1)).unflatten(0, streams.shape[:2])
            pyramid.append(streams)
        return pyramid


def _run_blocks(blocks: Sequence[nn.Module], x: Tensor) -> tuple[Tensor | None, Tensor]:
    """All blocks of a stage: the shared stream (None where it ends) and the streams of the tasks."""
    for block in blocks:
        if isinstance(block, TaskBlock):
            x, streams = block(x)
            return x, streams
        x = block(x)
    return x, x[None]


def parameters_by_part(model: MultiTaskModel) -> dict[str, int]:
    """Trainable parameters: adapters (A and B), magnitudes, decoder, norms of the backbone, and the rest of it."""
    adapters = list(adapters_of(model))
    factors = sum(p.numel() for a in adapters for p in a.factors)
    magnitudes = sum(a.m_O.numel() for a in adapters if isinstance(a, DoRA))
    decoder = sum(p.numel() for p in model.heads.parameters() if p.requires_grad)
    norms = other = 0
    for name, p in backbone_own_parameters(model):
        if p.requires_grad:
            norms, other = (norms + p.numel(), other) if "norm" in name else (norms, other + p.numel())
    return {"adapters": factors, "magnitudes": magnitudes, "decoder": decoder, "norms": norms, "other": other}


def backbone_own_parameters(model: MultiTaskModel) -> list[tuple[str, nn.Parameter]]:
    """The backbone's own parameters by name, adapters left out."""
    of_adapters = {id(p) for a in adapters_of(model) for p in a.parameters()}
    return [(name, p) for name, p in model.backbone.named_parameters() if id(p) not in of_adapters]


def adapter_list(model: MultiTaskModel) -> list[LowRankFactors]:
    """Every adapter, ordered by where it sits: stage, block, layer, task."""
    return sorted(adapters_of(model), key=lambda adapter: adapter.site)


def trained_state(model: MultiTaskModel) -> dict[str, Tensor]:
    """Trained parameters and persistent buffers of a model, by name; frozen weights come from elsewhere."""
    frozen = {name for name, p in model.named_parameters(remove_duplicate=False) if not p.requires_grad}
    return {name: tensor for name, tensor in model.state_dict().items() if name not in frozen}
