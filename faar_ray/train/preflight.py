"""What can be refused before anything is started, besides what a config refuses by itself."""

from __future__ import annotations

from faar_ray.config import TrialConfig
from faar_ray.data import dataset_channels
from faar_ray.errors import ConfigError


def preflight(config: TrialConfig) -> None:
    """Look whether data set, tasks and backbone exist; builds and loads nothing.

    Raises:
        ConfigError: a task without labels, a backbone that is not there.
        DataError: a data set or a checkpoint that is not there.
    """
    labels = dataset_channels(config.data.name)
    if missing := [task for task in config.data.tasks if task not in labels]:
        raise ConfigError(f"data.tasks: {config.data.name} has {', '.join(labels)}, got {', '.join(missing)}")
    if config.backbone.name != "swin_micro" or config.backbone.checkpoint is not None:
        from faar_ray.models.backbone import check_backbone  # timm takes seconds to import

        check_backbone(config.backbone)
