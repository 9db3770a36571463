"""Swin transformers (v1): any of timm's, and the package's own `swin_micro`."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

from timm.models.swin_transformer import SwinTransformer, checkpoint_filter_fn
from timm.models.swin_transformer_v2 import SwinTransformerV2
from torch import nn

from faar_ray.config.trial import BackboneConfig
from faar_ray.errors import ConfigError
from faar_ray.models import micro
from faar_ray.models.ensemble import TaskEnsemble
from faar_ray.models.family import BackboneFamily
from faar_ray.models.multitask import REDUCTION, MultiTaskModel
from faar_ray.models.swin.tadformer.build import adapt_prompted
from faar_ray.models.swin.tadformer.model import PromptedSwin
from faar_ray.models.swin.task_block import TaskBlock
from faar_ray.models.timm_weights import build_timm, load_checkpoint, load_weights, outline, patch_of

MICRO_PATCH = 4
LINEARS = {"qkv": "attn.qkv", "proj": "attn.proj", "fc1": "mlp.fc1", "fc2": "mlp.fc2"}


def _is_swin(name: str) -> bool:
    return isinstance(outline(name), SwinTransformer | SwinTransformerV2)


def _check(name: str) -> None:
    if isinstance(outline(name), SwinTransformerV2):
        raise ConfigError(
            f"backbone.name: {name} cannot be adapted: a Swin v2 block multiplies by qkv.weight itself, so an adapter "
            "around qkv would be passed by, and its task streams would need a block of their own, which attends by "
            "cosines and normalises what each branch adds; must be a Swin v1"
        )


def _build(config: BackboneConfig, size: tuple[int, int]) -> nn.Module:
    return _without_norm(build_timm(config, size, checkpoint_filter_fn))


def _build_micro(config: BackboneConfig, size: tuple[int, int]) -> nn.Module:
    backbone = micro.architecture(size, config.drop_path)
    load_checkpoint(backbone, config, checkpoint_filter_fn)
    if config.pretrained and config.checkpoint is None:
        load_weights(backbone, micro.weights(), micro.NAME, checkpoint_filter_fn)
    return _without_norm(backbone)


def _without_norm(backbone: Any) -> nn.Module:
    backbone.norm = nn.Identity()  # features are taken before the final norm (METHODS, shared ground)
    module: nn.Module = backbone
    return module


def _in_timm(name: str, stage: int, block: int, layer: str) -> str:
    if layer == REDUCTION:
        return f"layers.{stage + 1}.downsample.reduction"
    return f"layers.{stage}.blocks.{block}.{LINEARS[layer]}"


SWIN = BackboneFamily(
    "a timm Swin (swin_*)",
    _is_swin,
    _build,
    MultiTaskModel,
    TaskBlock,
    linears=LINEARS,
    check=_check,
    sides=patch_of,
    ensemble=TaskEnsemble,
    prompted=PromptedSwin,
    adapt_prompted=adapt_prompted,
    shared_input=True,
    convolutions=True,
    reductions=lambda backbone: [stage.downsample for stage in backbone.layers[1:]],
    peft_module=_in_timm,
)
MICRO = replace(
    SWIN,
    wanted=micro.NAME,
    recognises=lambda name: name == micro.NAME,
    build=_build_micro,
    sides=lambda name: (MICRO_PATCH, "the patch"),
)
