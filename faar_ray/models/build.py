"""From a trial's config to its model."""

from __future__ import annotations

import logging
from collections.abc import Mapping
from functools import partial

from faar_ray.adapters import ClockNet, FullBase, LowRankFactors, SineBase, SineHidden, Site
from faar_ray.config.trial import TrialConfig
from faar_ray.decoders import Decoder, build_decoder
from faar_ray.models.backbone import build_backbone, set_trainable
from faar_ray.models.ensemble import TaskEnsemble, ViTEnsemble
from faar_ray.models.multitask import MultiTaskModel, adapter_list
from faar_ray.models.surgery import adapt_backbone, base_owners, base_rank
from faar_ray.models.vit.vit import QUARTERS, MultiTaskViT, QuarteredViT
from faar_ray.seeding import seeded
from faar_ray.tasks import output_channels

DECODER_STAGE = 4
"""Stage of what is of the decoder, in traces: after the backbone's."""
log = logging.getLogger(__name__)


def build_model(config: TrialConfig) -> MultiTaskModel:
    """Backbone, adapters and heads as the config says, with the inits of its seed.

    Raises:
        ConfigError: tasks or backbone that do not exist, or an image size that the backbone cannot take.
        DataError: weights that cannot be loaded.
    """
    outputs = output_channels(config.data.name, config.data.tasks)
    backbone = build_backbone(config.backbone, config.data.image_size, config.seed)
    set_trainable(backbone, config.backbone.trainable)
    sines = config.adapter.kind == "sine_awb" or config.decoder.hidden == "sine"
    clock = ClockNet(config.data.tasks, config.sinewich, config.seed) if sines else None
    adapt_backbone(backbone, config, clock)
    decoder = _decoder(config, outputs, [int(level["num_chs"]) for level in backbone.feature_info], clock)
    merged = config.backbone.pyramid == "merged"
    ensemble = config.adapter.kind != "none" and config.placement.task_blocks == "all"
    model: MultiTaskModel
    if isinstance(backbone, QuarteredViT):
        model = (ViTEnsemble if ensemble else MultiTaskViT)(backbone, decoder, merged=merged, clock=clock)
    else:
        model = (TaskEnsemble if ensemble else MultiTaskModel)(backbone, decoder, merged=merged, clock=clock)
    _warn_clipped_ranks(model, config)
    return model


def _decoder(config: TrialConfig, outputs: Mapping[str, int], dims: list[int], clock: ClockNet | None) -> Decoder:
    """The decoder over the four maps; a ViT of one width 4 d counts as a Swin that starts at d."""
    merged, one_width = config.backbone.pyramid == "merged", len(set(dims)) == 1
    pyramid = [*dims[1:], dims[-1]] if merged else dims
    return build_decoder(
        config.decoder,
        pyramid,
        outputs,
        grids=[(side, side) for side in map_sides(config.data.image_size, merged=merged)],
        embed_dim=dims[0] // QUARTERS if one_width else dims[0],
        seed=config.seed,
        hidden=partial(_hidden, config, clock) if clock is not None and config.decoder.hidden == "sine" else None,
    )


def _hidden(config: TrialConfig, clock: ClockNet, outputs: int, inputs: int) -> SineHidden:
    """The heads' hidden layer from one base, or one each where `sinewich.base` says so."""
    site = Site(DECODER_STAGE, 0, "hidden", "shared")
    bases = {}
    for owner in base_owners(config):
        with seeded(config.seed, "decoder", "hidden", owner):
            bases[owner] = FullBase(outputs, inputs, config.sinewich.scale)
    return SineHidden(bases, clock, config.sinewich, site)


def map_sides(image_size: int, *, merged: bool) -> list[int]:
    """Sides of the four maps, finest first: strides 8, 16, 32, 32 if merged, else 4, 8, 16, 32; merging rounds up."""
    sides = [image_size // 4]
    while len(sides) < 4:
        sides.append(-(-sides[-1] // 2))
    return [*sides[1:], sides[-1]] if merged else sides


def _warn_clipped_ranks(model: MultiTaskModel, config: TrialConfig) -> None:
    def wanted(adapter: LowRankFactors) -> int:
        stage, shared = adapter.site.stage, adapter.site.shared
        if isinstance(adapter, SineBase):
            return base_rank(config, stage)
        return config.ranks.initial(shared=shared, stage=stage)

    clipped = [adapter for adapter in adapter_list(model) if adapter.rank < wanted(adapter)]
    if clipped:
        ranks = sorted({(a.site.stage, a.rank) for a in clipped})
        told = ", ".join(f"{rank} in stage {stage}" for stage, rank in ranks)
        keys = "ranks.init_rank" if config.sinewich.rank is None else "ranks.init_rank or sinewich.rank"
        log.warning(
            "%s: above the smaller side of its layer for %d adapters, which start at %s", keys, len(clipped), told
        )
