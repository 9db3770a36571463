"""From a sample at its own size to what the model sees: augmentation, then resizing.

Pixels of labels are never mixed. Borders that a rotation or a smaller scale opens are black, and ignored by every task.
All draws come from the generator that is given, none from the global state.
"""

from __future__ import annotations

from collections.abc import Mapping

import torch
from torch import Tensor
from torchvision.transforms import InterpolationMode
from torchvision.transforms.v2 import functional as F

from faar_ray.config.data_section import DataConfig
from faar_ray.data.dense import flip
from faar_ray.tasks import IGNORE, Task

Sample = dict[str, Tensor]


def for_evaluation(sample: Sample, tasks: Mapping[str, Task], config: DataConfig) -> Sample:
    """Resize the image (bilinear, antialiased) and the labels (nearest pixel) to `data.image_size`."""
    return {name: _resized(name, value, config.size) for name, value in sample.items()}


def for_training(sample: Sample, tasks: Mapping[str, Task], config: DataConfig, generator: torch.Generator) -> Sample:
    """Augment as `data.augment` says, then resize; a function of the generator's state."""
    resized = for_evaluation(sample, tasks, config)
    flipped = torch.rand(1, generator=generator) < 0.5
    batch = flip({name: value[None].clone() for name, value in resized.items()}, flipped, tasks)
    return {name: value[0] for name, value in batch.items()}


def _resized(name: str, value: Tensor, size: tuple[int, int]) -> Tensor:
    if name == "image":
        image: Tensor = F.resize(value, list(size), antialias=True)
        return image
    plane = value[None] if value.dim() == 2 else value
    resized = F.resize(plane, list(size), interpolation=InterpolationMode.NEAREST_EXACT)
    label: Tensor = resized[0] if value.dim() == 2 else resized
    return label


def blank_label(task: Task, size: tuple[int, int]) -> Tensor:
    """The compact label of a sample that has none: every pixel is ignored."""
    match task.type:
        case "segmentation":
            return torch.full(size, IGNORE, dtype=torch.uint8)
        case "normals":
            return torch.zeros(3, *size)
        case "regression":
            return torch.full((1, *size), torch.nan)
        case "depth":
            return torch.full((1, *size), float(IGNORE))
        case _:
            return torch.full((1, *size), IGNORE, dtype=torch.uint8)
