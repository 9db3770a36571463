"""Puts TADFormer's adapters into a Swin: shared LoRA everywhere, with filters for tasks in last blocks."""

from __future__ import annotations

from typing import Any

from torch import nn

from faar_ray.adapters import Site, prepared
from faar_ray.adapters.tad.filtered import FILTERS, FilteredLinear, FilteredLoRA
from faar_ray.config.adapters.tad_section import FILTERED
from faar_ray.config.trial import TrialConfig
from faar_ray.models.family import BackboneFamily
from faar_ray.models.surgery import layers_of, linear_of, share
from faar_ray.models.swin.tadformer.blocks import PromptedTaskBlock
from faar_ray.models.unused import Unused
from faar_ray.seeding import seeded


def adapt_prompted(backbone: Any, family: BackboneFamily, config: TrialConfig) -> None:
    """Change the backbone in place; every adapter is shared."""
    for s, stage in enumerate(backbone.layers):
        last = len(stage.blocks) - 1
        for b, block in enumerate(stage.blocks):
            for layer in layers_of(block, family, config.placement.layers):
                if b == last and layer in FILTERED:
                    _filter(block, layer, family, config, Site(s, b, layer, "shared"))
                else:
                    share(block, layer, family, config, s, b)
            if b < last and config.placement.dead_parameters:
                norm = nn.LayerNorm(block.norm1.normalized_shape[0])
                block.add_module("unused_prompt_norm", Unused(norm.named_parameters()))

        continues, scrambles = s < len(backbone.layers) - 1, config.tad.skip == "scrambled"
        stage.blocks[last] = PromptedTaskBlock(stage.blocks[last], continues=continues, scrambles=scrambles)


def _filter(block: nn.Module, layer: str, family: BackboneFamily, config: TrialConfig, site: Site) -> None:
    linear = linear_of(block, layer, family)
    rank = min(config.ranks.initial(shared=True, stage=site.stage, place=site.place), *linear.weight.shape)
    build = FILTERS[config.tad.filter]
    with seeded(config.seed, "adapter", site.stage, site.block, site.layer, site.task):  # A as of plain LoRA
        adapter: FilteredLoRA = build(linear.weight, rank, config.adapter.scale, len(config.data.tasks))
    adapter.site, adapter.dropout = site, config.adapter.dropout
    block.set_submodule(family.linears[layer], FilteredLinear(linear, prepared(adapter, config)))
