"""One adapted backbone, and a decoder with one head per task.

Axes: T tasks, B batch, H W space, C channels, N outputs.
"""

from __future__ import annotations

from typing import Any

from torch import Tensor, nn

from faar_ray.adapters import DoRA, LowRankFactors, adapters_of
from faar_ray.decoders import Decoder
from faar_ray.models.levels import Level, swin_levels


class MultiTaskModel(nn.Module):
    """image -> {task: prediction}; a task's features come from its own streams where it has them."""

    backbone: Any
    """A timm Swin, or a `QuarteredViT`."""
    decoder: Decoder

    def __init__(self, backbone: nn.Module, decoder: Decoder, *, merged: bool = True) -> None:
        super().__init__()
        self.backbone = backbone
        self.decoder = decoder
        self.merged = merged

    def forward(self, image_B3HW: Tensor) -> dict[str, Tensor]:
        """(B, 3, H, W) -> {task: (B, N_task, H, W)}."""
        size = (image_B3HW.shape[-2], image_B3HW.shape[-1])
        heads: dict[str, Any] = dict(self.decoder.heads.items())
        reduced: dict[str, list[Tensor]] = {task: [] for task in heads}
        for i, level in enumerate(self.levels(image_B3HW)):
            maps = level.reduced([head.reductions[i] for head in heads.values()])
            for task, of_task in zip(heads, maps, strict=True):
                reduced[task].append(of_task)
        return self.decoder.predict(reduced, size)

    def features(self, image_B3HW: Tensor) -> list[Tensor]:
        """Each stage's map, (T or 1, B, H', W', C'): merged, at strides 8, 16, 32, 32, or not, at 4, 8, 16, 32."""
        return [level.whole() for level in self.levels(image_B3HW)]

    def levels(self, image_B3HW: Tensor) -> list[Level]:
        """The same with what a decoder can take over still to be done."""
        return swin_levels(self.backbone, image_B3HW, merged=self.merged)


def parameters_by_part(model: MultiTaskModel) -> dict[str, int]:
    """Trainable parameters: adapters (A and B), magnitudes, decoder, norms of the backbone, and the rest of it."""
    adapters = list(adapters_of(model))
    factors = sum(p.numel() for a in adapters for p in a.factors)
    magnitudes = sum(a.m_O.numel() for a in adapters if isinstance(a, DoRA))
    decoder = sum(p.numel() for p in model.decoder.parameters() if p.requires_grad)
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
