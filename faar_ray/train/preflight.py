"""What can be refused before anything is started, besides what a config refuses by itself."""

from __future__ import annotations

import torch

from faar_ray.config.trial import TrialConfig
from faar_ray.data import check_labels, check_root, load_dataset
from faar_ray.errors import ConfigError


def preflight(config: TrialConfig, workers: int = 1) -> None:
    """Look whether data set, tasks and backbone exist; builds and loads nothing.

    Raises:
        ConfigError: a backbone or shards that are not there, no C++ compiler where `optim.compile` needs one, or a
            last batch with fewer images than workers.
        DataError: a data set, a task's labels or a checkpoint that is not there.
    """
    check_labels(config.data)
    check_root(config.data)
    if workers > 1:
        data = config.data
        check_last_batch(
            config, data.train_images if data.name == "scenes" else len(load_dataset(data, "train")), workers
        )
    if config.optim.compile and not torch.cuda.is_available():
        check_compiler()
    if config.backbone.name != "swin_micro" or config.backbone.checkpoint is not None:
        from faar_ray.models.backbone import check_backbone  # timm takes seconds to import
        from faar_ray.models.family import check_placement

        check_placement(check_backbone(config.backbone), config)


def check_last_batch(config: TrialConfig, images: int, workers: int) -> None:
    """Every worker must have an image of every batch.

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


def check_compiler() -> None:
    """On a CPU torch.compile builds with a C++ compiler.

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
