"""Low-rank adapters and the linears that carry them."""

from faar_ray.adapters.build import ADAPTERS, adapters_of, build_adapter
from faar_ray.adapters.linear import AdaptedLinear, TaskLinears
from faar_ray.adapters.low_rank import DoRA, LoRA, LowRankFactors, Site

__all__ = [
    "ADAPTERS",
    "AdaptedLinear",
    "DoRA",
    "LoRA",
    "LowRankFactors",
    "Site",
    "TaskLinears",
    "adapters_of",
    "build_adapter",
]
