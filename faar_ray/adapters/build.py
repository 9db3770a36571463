"""From config to adapters."""

from __future__ import annotations

from collections.abc import Callable, Iterator

from torch import Tensor, nn

from faar_ray.adapters.low_rank import DoRA, LoRA, LowRankFactors, Site
from faar_ray.config import AdapterConfig
from faar_ray.seeding import seeded

ADAPTERS: dict[str, Callable[[Tensor, int, AdapterConfig], LowRankFactors]] = {
    "lora": lambda weight, rank, config: LoRA(weight, rank, config.scale),
    "dora": lambda weight, rank, config: DoRA(weight, rank, config.scale, config.norm),
}


def build_adapter(weight_OI: Tensor, site: Site, config: AdapterConfig, rank: int, seed: int) -> LowRankFactors:
    """An adapter for a weight, its init drawn from a stream of its own (seed, site); rank at most min(O, I)."""
    with seeded(seed, "adapter", site.stage, site.block, site.layer, site.task):
        adapter = ADAPTERS[config.kind](weight_OI, min(rank, *weight_OI.shape), config)
    adapter.site = site
    return adapter


def adapters_of(model: nn.Module) -> Iterator[LowRankFactors]:
    """Every adapter of a model, found by type, in the order of `modules()`."""
    return (module for module in model.modules() if isinstance(module, LowRankFactors))
