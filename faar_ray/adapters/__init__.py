"""Low-rank adapters and the linears that carry them."""

from faar_ray.adapters.build import adapters_of, build_adapter, build_base
from faar_ray.adapters.linear import AdaptedLinear, TaskLinears
from faar_ray.adapters.low_rank import DoRA, LoRA, LowRankFactors, Site
from faar_ray.adapters.sinewich.clock import ClockNet
from faar_ray.adapters.sinewich.sine_awb import FullBase, SineBase, SineWeights, cached_kernels
from faar_ray.adapters.sinewich.sine_linear import Grid, SineHidden, SineLinears

__all__ = [
    "AdaptedLinear",
    "ClockNet",
    "DoRA",
    "FullBase",
    "Grid",
    "LoRA",
    "LowRankFactors",
    "SineBase",
    "SineHidden",
    "SineLinears",
    "SineWeights",
    "Site",
    "TaskLinears",
    "adapters_of",
    "build_adapter",
    "build_base",
    "cached_kernels",
]
