"""What can be refused before anything is started, besides what a config refuses by itself."""

from __future__ import annotations

from faar_ray.config import TrialConfig
from faar_ray.data import check_labels


def preflight(config: TrialConfig) -> None:
    """Look whether data set, tasks and backbone exist; builds and loads nothing.

    Raises:
        ConfigError: a backbone that is not there.
        DataError: a data set, a task's labels or a checkpoint that is not there.
    """
    check_labels(config.data)
    if config.backbone.name != "swin_micro" or config.backbone.checkpoint is not None:
        from faar_ray.models.backbone import check_backbone  # timm takes seconds to import

        check_backbone(config.backbone)
