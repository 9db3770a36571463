"""What rank policies give fresh adapters beside their two factors."""

from __future__ import annotations

from typing import TypeVar

import torch
from torch import nn

from faar_ray.adapters.low_rank import LoRA
from faar_ray.config.registries import load_builder
from faar_ray.config.trial import TrialConfig
from faar_ray.seeding import seeded

AnyLoRA = TypeVar("AnyLoRA", bound=LoRA)


def prepared(adapter: AnyLoRA, config: TrialConfig) -> AnyLoRA:
    """The adapter, with what the entry of `ranks.kind` gives it, drawn from a stream of its own (seed, site)."""
    policy, site = config.ranks.entry, adapter.site
    if policy.scale is not None:
        adapter.scale = policy.scale(config, adapter.rank, adapter.rank)
    if policy.prepare is not None:
        with seeded(config.seed, "prepared", site.stage, site.block, site.layer, site.task):
            load_builder(policy.prepare)(adapter, config)
    return adapter


def scale_by_rank(adapter: LoRA, config: TrialConfig) -> None:
    """W' = W + alpha / R B A for the rank R at any time (DyLoRA, equation 8)."""
    adapter.alpha = config.dylora.alpha


def give_singular_values(adapter: LoRA, config: TrialConfig) -> None:
    """W' = W + alpha / (r0 + 1e-5) B diag(E) A with E = 0, and A and B from N(0, 0.02^2) (AdaLoRA, section 3.1).

    r0 is the rank here, at the start: the scale does not follow later cuts.
    """
    adapter.E_R = nn.Parameter(torch.zeros(adapter.rank))
    for factor in adapter.factors:
        nn.init.normal_(factor, std=0.02)
