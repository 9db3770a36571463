"""From a trial's config to its model."""

from __future__ import annotations

from faar_ray.config import TrialConfig
from faar_ray.decoders import build_heads
from faar_ray.models.backbone import build_backbone, set_trainable
from faar_ray.models.multitask import MultiTaskModel
from faar_ray.models.surgery import adapt_backbone
from faar_ray.tasks import output_channels


def build_model(config: TrialConfig) -> MultiTaskModel:
    """Backbone, adapters and heads as the config says, with the inits of its seed.

    Raises:
        ConfigError: tasks or backbone that do not exist.
        DataError: weights that cannot be loaded.
    """
    outputs = output_channels(config.data.name, config.data.tasks)
    backbone = build_backbone(config.backbone, config.data.image_size, config.seed)
    set_trainable(backbone, config.backbone.trainable)
    adapt_backbone(backbone, config)
    dims = [int(level["num_chs"]) for level in backbone.feature_info]
    merged = config.backbone.pyramid == "merged"
    pyramid = [*dims[1:], dims[-1]] if merged else dims
    heads = build_heads(config.decoder, pyramid, outputs, embed_dim=dims[0], seed=config.seed)
    return MultiTaskModel(backbone, heads, merged=merged)
