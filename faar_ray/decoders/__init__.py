"""Decoders: from every task's feature pyramid to its prediction."""

from faar_ray.decoders.decoder import Decoder, build_decoder
from faar_ray.decoders.hrnet import HRNetHead
from faar_ray.decoders.spectral import GridFilter, RadialFilter, frequency_radius, low_band
from faar_ray.decoders.ts_pd import Consensus, SpectralLevel, SpectralPyramid

__all__ = [
    "Consensus",
    "Decoder",
    "GridFilter",
    "HRNetHead",
    "RadialFilter",
    "SpectralLevel",
    "SpectralPyramid",
    "build_decoder",
    "frequency_radius",
    "low_band",
]
