"""Plain vision transformers of timm, in four quarters."""

from __future__ import annotations

from typing import Any

from timm.layers import Attention, Mlp, PatchEmbed
from timm.models.deit import VisionTransformerDistilled
from timm.models.vision_transformer import VisionTransformer, checkpoint_filter_fn
from torch import nn

from faar_ray.config.trial import BackboneConfig
from faar_ray.errors import ConfigError
from faar_ray.models.ensemble import ViTEnsemble
from faar_ray.models.family import BackboneFamily
from faar_ray.models.timm_weights import build_timm, outline, patch_of
from faar_ray.models.vit.vit import QUARTERS, MultiTaskViT, QuarteredViT, TokenViT, bounds
from faar_ray.models.vit.vit_block import ViTBlock, ViTTaskBlock


def _is_vit(name: str) -> bool:
    return type(outline(name)) in (VisionTransformer, VisionTransformerDistilled)


def _check(name: str) -> None:
    """Raise ConfigError unless every linear of every block is a module that an adapter can stand around."""
    blocks, patches = list(outline(name).blocks), outline(name).patch_embed
    if type(patches) is not PatchEmbed:
        kind = type(patches).__name__
        raise ConfigError(f"backbone.name: {name} cannot be adapted: a network makes its patches ({kind})")
    if odd := next((b for b in blocks if type(b) is not ViTBlock or type(b.attn) is not Attention), None):
        kind = type(odd).__name__ if type(odd) is not ViTBlock else type(odd.attn).__name__
        raise ConfigError(f"backbone.name: {name} cannot be adapted: its blocks are no plain ViT blocks ({kind})")
    if any(getattr(b.attn, "gate", None) is not None or type(b.mlp) is not Mlp for b in blocks):
        raise ConfigError(f"backbone.name: {name} cannot be adapted: its attention or MLP is gated")
    if len(blocks) < QUARTERS:
        raise ConfigError(f"backbone.name: {name} has {len(blocks)} blocks, must have at least {QUARTERS}")


def _build(config: BackboneConfig, size: tuple[int, int]) -> nn.Module:
    return QuarteredViT(build_timm(config, size, checkpoint_filter_fn))


def _task_block(block: Any, task_linears: Any, continues: bool, *, shared_input: bool = False) -> ViTTaskBlock:
    return ViTTaskBlock(block, task_linears, continues)


LINEARS = {"qkv": "attn.qkv", "proj": "attn.proj", "fc1": "mlp.fc1", "fc2": "mlp.fc2"}


def _in_timm(name: str, stage: int, block: int, layer: str) -> str:
    start = bounds(len(outline(name).blocks))[stage]
    return f"blocks.{start + block}.{LINEARS[layer]}"


VIT = BackboneFamily(
    "a plain timm ViT (vit_*)",
    _is_vit,
    _build,
    MultiTaskViT,
    _task_block,
    linears=LINEARS,
    embed_dim=lambda widths: widths[0] // QUARTERS,  # one width 4 d counts as a Swin that starts at d
    check=_check,
    sides=patch_of,
    ensemble=ViTEnsemble,
    task_tokens={"prepended": TokenViT},
    no_task_tokens="whose blocks all have one width: nothing is lifted",
    reductions="whose blocks all have one resolution",
    peft_module=_in_timm,
)
