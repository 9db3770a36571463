"""From config to adapters."""

from __future__ import annotations

from collections.abc import Iterator

from torch import Tensor, nn

from faar_ray.adapters.low_rank import DoRA, LoRA, LowRankFactors, Site
from faar_ray.adapters.sinewich.sine_awb import SineBase
from faar_ray.config.registries import load_builder
from faar_ray.config.trial import AdapterConfig
from faar_ray.seeding import seeded


def build_lora(weight_OI: Tensor, rank: int, config: AdapterConfig) -> LoRA:
    """`lora`, and the shared adapters of `sine_awb`."""
    return LoRA(weight_OI, rank, config.scale)


def build_dora(weight_OI: Tensor, rank: int, config: AdapterConfig) -> LoRA:
    """`dora`."""
    return DoRA(weight_OI, rank, config.scale, config.norm)


def build_adapter(weight_OI: Tensor, site: Site, config: AdapterConfig, rank: int, seed: int) -> LoRA:
    """An adapter for a weight, its init drawn from a stream of its own (seed, site); rank at most min(O, I)."""
    if config.entry.build is None:
        raise ValueError(f"adapter.kind {config.kind} builds no adapters")
    build = load_builder(config.entry.build)

    with seeded(seed, "adapter", site.stage, site.block, site.layer, site.task):
        adapter: LoRA = build(weight_OI, min(rank, *weight_OI.shape), config)
    adapter.site, adapter.dropout = site, config.dropout
    return adapter


def build_base(weight_OI: Tensor, site: Site, conv_size: int, rank: int, seed: int) -> SineBase:
    """A base M for the kernels beside a weight, drawn likewise."""
    with seeded(seed, "adapter", site.stage, site.block, site.layer, site.task):
        base = SineBase(weight_OI, min(rank, *weight_OI.shape), conv_size)
    base.site = site
    return base


def adapters_of(model: nn.Module) -> Iterator[LowRankFactors]:
    """Every adapter of a model, found by type, in the order of `modules()`."""
    return (module for module in model.modules() if isinstance(module, LowRankFactors))
