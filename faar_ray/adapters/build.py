"""From config to adapters."""

from __future__ import annotations

from collections.abc import Iterator

from torch import Tensor, nn

from faar_ray.adapters.adapter import Adapter, Site
from faar_ray.adapters.dora import MAGNITUDES, drawn_norms
from faar_ray.adapters.low_rank import LoRA, LowRankFactors
from faar_ray.adapters.sinewich.sine_awb import SineBase
from faar_ray.adapters.spectrum.decomposition import decomposition_of
from faar_ray.adapters.spectrum.warp import SpectrumWarp
from faar_ray.config.registries import load_builder
from faar_ray.config.trial import AdapterConfig, SpectrumConfig
from faar_ray.seeding import seeded


def build_lora(weight_OI: Tensor, rank: int, config: AdapterConfig) -> LoRA:
    """`lora`, and the shared adapters of `sine_awb`."""
    return LoRA(weight_OI, rank, config.scale)


def build_dora(weight_OI: Tensor, rank: int, config: AdapterConfig) -> LoRA:
    """`dora`."""
    adapter = MAGNITUDES[config.magnitude](weight_OI, rank, config.scale, config.norm, config.direction)
    if config.magnitude_start == "drawn":
        adapter.start_magnitude(drawn_norms(weight_OI.detach()))
    return adapter


def build_adapter(weight_OI: Tensor, site: Site, config: AdapterConfig, rank: int, seed: int) -> LoRA:
    """An adapter for a weight, its init drawn from a stream of its own (seed, site); rank at most min(O, I)."""
    if config.entry.build is None:
        raise ValueError(f"adapter.kind {config.kind} builds no adapters")
    build = load_builder(config.entry.build)

    with seeded(seed, "adapter", site.stage, site.block, site.layer, site.task):
        adapter: LoRA = build(weight_OI, min(rank, *weight_OI.shape), config)
    adapter.site, adapter.dropout = site, config.dropout
    return adapter


def build_warp(linear: nn.Linear, site: Site, config: SpectrumConfig) -> SpectrumWarp:
    """`spectrum`."""
    return SpectrumWarp(decomposition_of(linear), config.cells_of(shared=site.shared), config)


def build_spectrum_adapter(
    linear: nn.Linear, site: Site, config: AdapterConfig, spectrum: SpectrumConfig, seed: int
) -> Adapter:
    """An adapter of a linear's singular values, its init drawn likewise."""
    if config.entry.build is None:
        raise ValueError(f"adapter.kind {config.kind} builds no adapters")
    with seeded(seed, "adapter", site.stage, site.block, site.layer, site.task):
        adapter: Adapter = load_builder(config.entry.build)(linear, site, spectrum)
    adapter.site, adapter.dropout = site, config.dropout
    return adapter


def build_base(weight_OI: Tensor, site: Site, conv_size: int, rank: int, seed: int) -> SineBase:
    """A base M for the kernels beside a weight, drawn likewise."""
    with seeded(seed, "adapter", site.stage, site.block, site.layer, site.task):
        base = SineBase(weight_OI, min(rank, *weight_OI.shape), conv_size)
    base.site = site
    return base


def adapters_of(model: nn.Module) -> Iterator[LowRankFactors]:
    """Every adapter with ranks of a model, found by type, in the order of `modules()`."""
    return (module for module in model.modules() if isinstance(module, LowRankFactors))
