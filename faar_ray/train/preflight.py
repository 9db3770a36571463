"""Checks before anything starts, beyond a config's own validation."""

from __future__ import annotations

import torch

from faar_ray.config.trial import TrialConfig
from faar_ray.data import check_labels, check_root, count_images
from faar_ray.errors import ConfigError
from faar_ray.train.weights import weights_digest

MICRO_PATCH = 4
"""Of swin_micro, whose module imports timm, which takes seconds."""


def preflight(config: TrialConfig, workers: int = 1, *, data: bool = True) -> None:
    """Check that data set, tasks and backbone exist, and that the weights of `backbone.checkpoint` fit.

    Args:
        config: of a trial.
        workers: of its training.
        data: whether the data set is checked, which lists its files; no need where it was for another trial.

    Raises:
        ConfigError: the data set cannot be read, labels, shards or the backbone are missing, `optim.compile` lacks a
            C++ compiler, the last batch has fewer images than workers, or `ranks.budget` is too small.
        DataError: `backbone.checkpoint` cannot be loaded.
    """
    if data:
        check_labels(config.data)
        check_root(config.data)
    if workers > 1:
        check_last_batch(config, count_images(config.data, "train"), workers)
    if config.optim.compile and not torch.cuda.is_available():
        check_compiler()
    plain = config.backbone.name == "swin_micro" and config.backbone.checkpoint is None
    if not plain or any(side % MICRO_PATCH for side in config.data.size):
        from faar_ray.models.backbone import check_backbone
        from faar_ray.models.family import check_placement

        check_placement(check_backbone(config.backbone), config)
        if config.backbone.checkpoint is not None:
            weights_digest(config)
    if config.ranks.kind == "spectral" and config.ranks.budget is not None:
        check_budget(config)


def check_last_batch(config: TrialConfig, images: int, workers: int) -> None:
    """Check that every worker gets an image of every batch.

    Raises:
        ConfigError: the last batch has too few.
    """
    batch = config.optim.batch_size
    smallest = images % batch or min(batch, images)
    if smallest < workers:
        raise ConfigError(
            f"optim.batch_size: {batch} leaves a batch of {smallest} of {images} images, fewer than "
            f"resources.workers {workers}; choose another size"
        )


def check_budget(config: TrialConfig) -> None:
    """Check that `ranks.budget` leaves every adapter at `spectral.floor`, by building the model.

    Raises:
        ConfigError: it does not; with the smallest budget and the full size.
    """
    from faar_ray.models import adapter_list, build_model
    from faar_ray.ranks.spectral.budget import budget_range

    sizes = budget_range(config, adapter_list(build_model(config.without_weights())))
    if fault := sizes.fault(config.ranks.budget):
        raise ConfigError(fault)


def check_compiler() -> None:
    """Check that there is a C++ compiler, which torch.compile needs on a CPU.

    Raises:
        ConfigError: there is none.
    """
    from torch._inductor.cpp_builder import get_cpp_compiler
    from torch._inductor.exc import InvalidCxxCompiler

    try:
        get_cpp_compiler()
    except InvalidCxxCompiler:
        raise ConfigError(
            "optim.compile: must be false here: torch.compile needs a C++ compiler on a CPU, and none was found "
            "(install g++, or name one in the environment variable CXX)"
        ) from None
