"""One adapted backbone, and a decoder with one head per task.

Axes: T tasks, B batch, H W space, C channels, N outputs.
"""

from __future__ import annotations

from collections import Counter
from contextlib import nullcontext
from typing import Any

import torch
from torch import Tensor, nn

from faar_ray.adapters import (
    AdaptedLinear,
    ClockNet,
    DoRA,
    LowRankFactors,
    SineBase,
    SineWeights,
    adapters_of,
    flows_together,
    warps_of,
)
from faar_ray.adapters.tad.filtered import FilteredLoRA
from faar_ray.decoders import Decoder
from faar_ray.models.swin.levels import Level, swin_levels

REDUCTION = "reduction"
"""Layer, in traces, of what merges tokens between two stages."""


class MultiTaskModel(nn.Module):
    """image -> {task: prediction}; a task's features come from its own streams where it has them."""

    backbone: Any
    """What the family builds."""
    decoder: Decoder
    weights_digest: str = ""
    """Of the weights that the backbone began with (`digest_of_weights`); "" for those of its initialisation."""

    def __init__(
        self, backbone: nn.Module, decoder: Decoder, *, merged: bool = True, clock: ClockNet | None = None
    ) -> None:
        super().__init__()
        self.backbone = backbone
        self.decoder = decoder
        self.merged = merged
        self.clock = clock
        self.prompts: nn.Module | None = None
        """Tokens of tasks among the backbone's, and what takes them from stage to stage (TADFormer, Free Sinewich)."""
        self.restandardise: nn.Module = nn.Identity()
        """From the data's statistics of images to those that the backbone was trained with."""

    def forward(self, image_B3HW: Tensor) -> dict[str, Tensor]:
        """(B, 3, H, W), standardised as data sets do -> {task: (B, N_task, H, W)}."""
        # a compiled model joins them by itself
        with nullcontext() if torch.compiler.is_compiling() else flows_together(warps_of(self)):
            return self._predictions(image_B3HW)

    def _predictions(self, image_B3HW: Tensor) -> dict[str, Tensor]:
        size = (image_B3HW.shape[-2], image_B3HW.shape[-1])
        heads: dict[str, Any] = dict(self.decoder.heads.items())
        reduced: dict[str, list[Tensor]] = {task: [] for task in heads}
        for i, level in enumerate(self.levels(self.restandardise(image_B3HW))):
            maps = level.reduced([head.reductions[i] for head in heads.values()])
            for task, of_task in zip(heads, maps, strict=True):
                reduced[task].append(of_task)
        return self.decoder.predict(reduced, size)

    def features(self, image_B3HW: Tensor) -> list[Tensor]:
        """Each stage's map, (T or 1, B, H', W', C'): merged, at strides 8, 16, 32, 32, or not, at 4, 8, 16, 32.

        Here and in `levels` the image is standardised as the backbone was trained (`restandardise`).
        """
        return [level.materialised() for level in self.levels(image_B3HW)]

    def levels(self, image_B3HW: Tensor) -> list[Level]:
        """The same with what a decoder can take over still to be done."""
        return swin_levels(self.backbone, image_B3HW, merged=self.merged)


def parameters_by_part(model: MultiTaskModel) -> dict[str, int]:
    """Trainable parameters: adapters (with the clock), magnitudes, decoder, norms of the backbone, the rest of it."""
    terms = parameter_terms(model)
    parts = {"adapters": 0, "magnitudes": 0, "decoder": 0, "norms": 0, "other": 0}
    for term, count in terms.items():
        parts[PART_OF.get(term, "decoder" if term.startswith("decoder") else "other")] += count
    return parts


def parameter_terms(model: MultiTaskModel) -> dict[str, int]:
    """The same, term by term; those that are 0 are left out."""
    counts: Counter[str] = Counter()
    for adapter in adapters_of(model):
        base = isinstance(adapter, SineBase)
        counts["base factors A and B" if base else "LoRA factors"] += sum(p.numel() for p in adapter.factors)
        if adapter.E_R is not None:
            counts["singular values"] += adapter.E_R.numel()
        if isinstance(adapter, SineBase):
            counts["base cores W"] += adapter.core.numel()
        if isinstance(adapter, FilteredLoRA):
            counts["task filters"] += adapter.parameter_count() - sum(p.numel() for p in adapter.factors)
        if isinstance(adapter, DoRA):
            counts["magnitudes"] += adapter.magnitude().numel()
    counts["flows of spectra"] = sum(warp.theta_1K.numel() for warp in warps_of(model))
    if model.clock is not None:
        counts["clock"] += sum(p.numel() for p in model.clock.parameters() if p.requires_grad)
    if model.prompts is not None:
        for name, p in model.prompts.named_parameters():
            counts[{"tokens_TC": "task prompts", "gates_S": "gates"}.get(name, "prompt lifts")] += p.numel()
    for name, p in model.decoder.named_parameters():
        if p.requires_grad:
            counts[_decoder_term(name)] += p.numel()
    for name, p in task_independent_parameters(model):
        if p.requires_grad:
            counts[_backbone_term(name)] += p.numel()
    return {term: count for term, count in counts.items() if count}


PART_OF = {
    "LoRA factors": "adapters",
    "singular values": "adapters",
    "dead factors": "adapters",
    "dead flows": "adapters",
    "base factors A and B": "adapters",
    "base cores W": "adapters",
    "flows of spectra": "adapters",
    "clock": "adapters",
    "task filters": "adapters",
    "task prompts": "adapters",
    "prompt lifts": "adapters",
    "gates": "adapters",
    "prompt norms": "norms",
    "magnitudes": "magnitudes",
    "norms": "norms",
}
DEAD = {
    "A_RI": "dead factors",
    "B_RO": "dead factors",
    "E_R": "dead factors",
    "m_O": "magnitudes",
    "theta_O": "magnitudes",
    "theta_1K": "dead flows",
}
"""Parameters of `Unused`."""


def _decoder_term(name: str) -> str:
    first, _, rest = name.partition(".")
    if first != "heads":
        return {"spectral": "decoder spectral", "hidden": "decoder hidden base"}[first]
    layer = rest.split(".")[1]
    named = {"reductions": "decoder reductions", "norm": "decoder norms", "output": "decoder outputs"}
    return named.get(layer, "decoder hidden biases" if name.endswith("bias") else "decoder hidden weights")


def is_norm(name: str) -> bool:
    """Whether a parameter of this name is of a norm."""
    return "norm" in name or any(part.startswith("bn") for part in name.split("."))


def _backbone_term(name: str) -> str:
    if (last := name.rpartition(".")[2]) in DEAD:
        return DEAD[last]
    if ".reduction." in name:
        return "merging reductions"
    if is_norm(name):
        return "prompt norms" if "prompt_norm" in name else "norms"
    if name.endswith(("relative_position_bias_table", "pos_embed")):
        return "position tables"
    return "patch embedding" if "patch_embed" in name else "backbone"


def task_independent_parameters(model: MultiTaskModel) -> list[tuple[str, nn.Parameter]]:
    """The backbone's own parameters by name, adapters left out."""
    of_adapters = {id(p) for a in (*adapters_of(model), *warps_of(model)) for p in a.parameters()}
    return [(name, p) for name, p in model.backbone.named_parameters() if id(p) not in of_adapters]


def magnitude_penalty(model: MultiTaskModel) -> Tensor:
    """Sum over linears with a shared DoRA adapter of mean((m / ||W|| - 1)^2), a reduction's once per task."""
    total = torch.zeros((), device=next(model.parameters()).device)
    for module in model.modules():
        if isinstance(module, AdaptedLinear) and isinstance(module.adapter, DoRA):
            norm_O = torch.linalg.vector_norm(module.base.weight, dim=1)
            times = len(model.decoder.heads) if module.adapter.site.layer == REDUCTION else 1
            total = total + times * (module.adapter.magnitude() / norm_O - 1).square().mean()
    return total


def sine_layers(model: MultiTaskModel) -> list[SineWeights]:
    """Every layer whose task weights come from a base, by site."""
    layers = (module for module in model.modules() if isinstance(module, SineWeights))
    return sorted(layers, key=lambda layer: layer.site)


def adapter_list(model: MultiTaskModel) -> list[LowRankFactors]:
    """Every adapter with ranks, ordered by where it sits: stage, block, layer, task."""
    return sorted(adapters_of(model), key=lambda adapter: adapter.site)


def trained_state(model: MultiTaskModel) -> dict[str, Tensor]:
    """Trained parameters and persistent buffers of a model, by name; frozen weights come from elsewhere."""
    frozen = {name for name, p in model.named_parameters(remove_duplicate=False) if not p.requires_grad}
    return {name: tensor for name, tensor in model.state_dict().items() if name not in frozen}
