"""From a trial's config to its model."""

from __future__ import annotations

import logging
from collections.abc import Mapping, Sequence
from difflib import get_close_matches
from functools import partial

from faar_ray.adapters import ClockNet, FullBase, LowRankFactors, SineBase, SineHidden, Site
from faar_ray.adapters.sinewich.task_tokens import TaskTokens
from faar_ray.adapters.tad.prompts import TaskPrompts
from faar_ray.config.trial import TrialConfig
from faar_ray.decoders import Decoder, build_decoder
from faar_ray.errors import ConfigError
from faar_ray.models.backbone import build_backbone, digest_of_weights, family_of
from faar_ray.models.family import BackboneFamily, check_placement
from faar_ray.models.image_statistics import restandardise, statistics_of
from faar_ray.models.multitask import MultiTaskModel, adapter_list
from faar_ray.models.surgery import adapt_backbone, base_owners, base_rank
from faar_ray.models.swin.tadformer.model import PromptedSwin
from faar_ray.seeding import seeded
from faar_ray.tasks import tasks_of

DECODER_STAGE = 4
"""Stage of what is of the decoder, in traces: after the backbone's."""
log = logging.getLogger(__name__)


def build_model(config: TrialConfig) -> MultiTaskModel:
    """Backbone, adapters and heads as the config says, with the inits of its seed.

    Raises:
        ConfigError: tasks or backbone that do not exist, or an image size that the backbone cannot take.
        DataError: weights that cannot be loaded.
    """
    outputs = {name: task.channels for name, task in tasks_of(config.data).items()}
    family = family_of(config.backbone.name)
    check_placement(family, config)
    backbone = build_backbone(config.backbone, config.data.size, config.seed)
    tokens = _task_tokens(config, family.widths(backbone))
    clock = ClockNet(config.data.tasks, config.sinewich, config.seed, tokens) if config.has_sine_bases else None
    has_weights = config.backbone.pretrained or config.backbone.checkpoint is not None
    weights_digest = digest_of_weights(backbone) if has_weights else ""
    adapt_backbone(backbone, family, config, clock)
    decoder = _decoder(config, family, outputs, family.widths(backbone), clock)

    model = model_class(family, config)(backbone, decoder, merged=config.backbone.pyramid == "merged", clock=clock)
    if isinstance(model, PromptedSwin):
        model.prompts = TaskPrompts(len(outputs), family.widths(backbone), config.seed)
    if tokens is not None:
        model.prompts = tokens
    model.weights_digest = weights_digest
    model.restandardise = restandardise(statistics_of(config.backbone))
    _check_places(model, config)
    _warn_clipped_ranks(model, config)
    return model


def model_class(family: BackboneFamily, config: TrialConfig) -> type[MultiTaskModel]:
    """Which of a family's models a placement needs."""
    placement = config.placement
    if config.adapter.adapts and placement.task_blocks == "all" and family.ensemble is not None:
        return family.ensemble
    if config.adapter.adapts and placement.task_path == "prompted" and family.prompted is not None:
        return family.prompted
    return family.task_tokens[config.sinewich.task_tokens] if config.tokens_in_trunk else family.model


def _task_tokens(config: TrialConfig, widths: Sequence[int]) -> TaskTokens | None:
    """The tasks' tokens, where the backbone's attention sees them."""
    if not config.tokens_in_trunk:
        return None
    lifted = config.sinewich.task_tokens == "lifted"
    return TaskTokens(len(config.data.tasks), widths, lifted=lifted, seed=config.seed)


def _decoder(
    config: TrialConfig,
    family: BackboneFamily,
    outputs: Mapping[str, int],
    widths: Sequence[int],
    clock: ClockNet | None,
) -> Decoder:
    """The decoder over the four maps."""
    pyramid, (height, width) = config.backbone.pyramid, config.data.size
    return build_decoder(
        config.decoder,
        family.channels(widths, pyramid),
        outputs,
        grids=[(-(-height // stride), -(-width // stride)) for stride in family.strides[pyramid]],
        embed_dim=family.embed_dim(widths),
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


def _check_places(model: MultiTaskModel, config: TrialConfig) -> None:
    """Every place of `ranks.pattern` has an adapter."""
    places = [adapter.site.place for adapter in adapter_list(model)]
    for place in config.ranks.pattern or ():
        if place not in places:
            near = get_close_matches(place, places, n=1)
            meant = f" (did you mean {near[0]}?)" if near else ""
            raise ConfigError(f"ranks.pattern: must be places of adapters, and this model has none at {place}{meant}")


def _warn_clipped_ranks(model: MultiTaskModel, config: TrialConfig) -> None:
    def wanted(adapter: LowRankFactors) -> int:
        site = adapter.site
        if isinstance(adapter, SineBase):
            return base_rank(config, site)
        return config.ranks.initial(shared=site.shared, stage=site.stage, place=site.place)

    clipped = [adapter for adapter in adapter_list(model) if adapter.rank < wanted(adapter)]
    if clipped:
        ranks = sorted({(a.site.stage, a.rank) for a in clipped})
        listed = ", ".join(f"{rank} in stage {stage}" for stage, rank in ranks)
        keys = "ranks.init_rank" if config.sinewich.rank is None else "ranks.init_rank or sinewich.rank"
        log.warning(
            "%s: above the smaller side of its layer for %d adapters, which start at %s", keys, len(clipped), listed
        )
