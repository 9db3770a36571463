"""Decoders: from every task's feature pyramid to its prediction."""

from faar_ray.decoders.consensus import Consensus
from faar_ray.decoders.decoder import Decoder, HiddenWeights, build_decoder
from faar_ray.decoders.hrnet import BiasOnly, HRNetHead
from faar_ray.decoders.spectral import GridFilter, RadialFilter, frequency_radius, low_band
from faar_ray.decoders.ts_pd import SpectralLevel, SpectralPyramid

__all__ = [
    "BiasOnly",
    "Consensus",
    "Decoder",
    "GridFilter",
    "HRNetHead",
    "HiddenWeights",
    "RadialFilter",
    "SpectralLevel",
    "SpectralPyramid",
    "build_decoder",
    "frequency_radius",
    "low_band",
]
