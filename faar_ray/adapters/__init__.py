"""Low-rank adapters and the linears that carry them."""

from faar_ray.adapters.adapter import Adapter, Site
from faar_ray.adapters.build import adapters_of, build_adapter, build_base, build_spectrum_adapter
from faar_ray.adapters.dora import DoRA
from faar_ray.adapters.linear import AdaptedLinear, TaskLinears
from faar_ray.adapters.low_rank import LoRA, LowRankFactors
from faar_ray.adapters.prepare import prepared
from faar_ray.adapters.sinewich.clock import ClockNet
from faar_ray.adapters.sinewich.sine_awb import FullBase, SineBase, SineWeights, cached_kernels
from faar_ray.adapters.sinewich.sine_linear import Grid, SineHidden, SineLinears
from faar_ray.adapters.spectrum.decomposition import decompose_all
from faar_ray.adapters.spectrum.warp import SpectrumWarp, flows_together, warps_of

__all__ = [
    "AdaptedLinear",
    "Adapter",
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
    "SpectrumWarp",
    "TaskLinears",
    "adapters_of",
    "build_adapter",
    "build_base",
    "build_spectrum_adapter",
    "cached_kernels",
    "decompose_all",
    "flows_together",
    "prepared",
    "warps_of",
]
