"""From a sample at its own size to what the model sees: augmentation, then resizing.

torchvision's v2 functions do the work; `Normals` teaches them that normals turn with the picture. All draws come from
the generator that is given, none from the global state. Pixels of labels are never mixed, but for the directions of
normals. Borders that a rotation or a smaller scale opens are black, and ignored by every task.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor
from torchvision import tv_tensors
from torchvision.transforms import InterpolationMode
from torchvision.transforms.v2 import functional as F

from faar_ray.config.data_section import AugmentConfig, DataConfig
from faar_ray.tasks import IGNORE, Task

Sample = dict[str, Tensor]
NEAREST, BILINEAR = InterpolationMode.NEAREST_EXACT, InterpolationMode.BILINEAR


class Normals(tv_tensors.TVTensor):  # type: ignore[misc]
    """Directions (3, H, W) float32: x right, y down, z forward; zeros = ignore."""


@dataclass(frozen=True, slots=True)
class Preset:
    """What the papers do on a data set."""

    rotation: float = 0.0
    """Largest rotation to either side, degrees."""
    scale: tuple[float, ...] = ()
    """Two numbers are a range, others a choice."""


PRESETS = {"none": Preset(), "pascal": Preset(20.0, (0.75, 1.25)), "nyud": Preset(0.0, (1.0, 1.2, 1.5))}
"""MTLoRA's and TADFormer's code; all flip."""
AUTO = {"pascal_context": "pascal", "nyud": "nyud"}


@dataclass(frozen=True, slots=True)
class Change:
    """One drawn change of an image and its labels."""

    flip: bool
    angle: float
    """Clockwise, degrees."""
    scale: float
    """Above 1 is nearer."""
    crop: tuple[float, float, float, float] | None
    """Top, left, height, width, as shares of the image."""
    colour: tuple[float, float, float] | None
    """Factors of brightness, contrast and saturation."""


def for_evaluation(sample: Sample, tasks: Mapping[str, Task], config: DataConfig, *, labels: bool = True) -> Sample:
    """Resize the image (bilinear, antialiased) to `data.image_size`, and the labels (nearest pixel).

    Args:
        sample: compact, of one size.
        tasks: of its labels.
        config: the size.
        labels: whether labels are resized too; else they stay at their own size.
    """
    resized = {name: value for name, value in wrapped(sample, tasks).items() if name == "image" or labels}
    return {**sample, **{name: _plain(_resize(value, config.size)) for name, value in resized.items()}}


def for_training(sample: Sample, tasks: Mapping[str, Task], config: DataConfig, generator: torch.Generator) -> Sample:
    """Augment as `data.augment` says, then resize; a function of the generator's state."""
    change = draw(config.augment, config.name, generator)
    changed = {
        name: apply(change, value, 0.0 if name == "image" else ignored_value(tasks[name]))
        for name, value in wrapped(sample, tasks).items()
    }
    resized = {name: _plain(_resize(value, config.size)) for name, value in changed.items()}
    for name, task in tasks.items():
        if task.type == "depth" and change.scale != 1:
            known = resized[name] != IGNORE
            resized[name] = torch.where(known, resized[name] / change.scale, resized[name])
    return resized


def draw(config: AugmentConfig, dataset: str, generator: torch.Generator) -> Change:
    """A change, of uniform draws."""
    preset = PRESETS[AUTO.get(dataset, "none") if config.preset == "auto" else config.preset]
    rotation = preset.rotation if config.rotation is None else config.rotation
    scales = preset.scale if config.scale is None else config.scale

    def uniform(low: float = 0.0, high: float = 1.0) -> float:
        return low + (high - low) * float(torch.rand((), generator=generator, dtype=torch.float64))

    flip = uniform() < 0.5 and config.flip is not False
    angle = uniform(-rotation, rotation)
    position = uniform()
    if len(scales) == 2:
        scale = scales[0] + position * (scales[1] - scales[0])
    else:
        scale = scales[int(position * len(scales))] if scales else 1.0

    crop = colour = None
    if config.crop is not None:
        height, width = uniform(config.crop), uniform(config.crop)
        crop = uniform(0, 1 - height), uniform(0, 1 - width), height, width
    if config.colour:
        colour = tuple(uniform(1 - config.colour, 1 + config.colour) for _ in range(3))
    return Change(flip, angle, scale, crop, colour)  # type: ignore[arg-type]


def apply(change: Change, value: Tensor, fill: float) -> Tensor:
    """A change of one wrapped image or label; opened borders are `fill`."""
    if change.flip:
        value = F.horizontal_flip(value)
    if change.angle != 0 or change.scale != 1:
        image = isinstance(value, tv_tensors.Image)
        value = F.affine(
            value,
            angle=change.angle,
            translate=[0, 0],
            scale=change.scale,
            shear=[0.0, 0.0],
            interpolation=BILINEAR if image else InterpolationMode.NEAREST,
            fill=fill,
        )
    if change.crop is not None:
        height, width = value.shape[-2:]
        top, left, kept_height, kept_width = change.crop
        rows, columns = max(1, round(kept_height * height)), max(1, round(kept_width * width))
        first_row, first_column = min(int(top * height), height - rows), min(int(left * width), width - columns)
        value = F.crop(value, first_row, first_column, rows, columns)
    if change.colour is not None and isinstance(value, tv_tensors.Image):
        brightness, contrast, saturation = change.colour
        value = F.adjust_saturation(F.adjust_contrast(F.adjust_brightness(value, brightness), contrast), saturation)
    return value


def wrapped(sample: Sample, tasks: Mapping[str, Task]) -> dict[str, Tensor]:
    """Compact tensors as torchvision's types: image, mask, normals."""
    return {name: _wrap(name, value, tasks) for name, value in sample.items()}


def _wrap(name: str, value: Tensor, tasks: Mapping[str, Task]) -> Tensor:
    if name == "image":
        image: Tensor = tv_tensors.Image(value)
        return image
    if tasks[name].type != "normals":
        mask: Tensor = tv_tensors.Mask(value)
        return mask
    directions = value if value.is_floating_point() else unit(value.float())
    return Normals(directions)


def _plain(value: Tensor) -> Tensor:
    """Undo `wrapped`."""
    plain: Tensor = value.as_subclass(Tensor)
    return plain


def _resize(value: Tensor, size: tuple[int, int]) -> Tensor:
    if tuple(value.shape[-2:]) == size:
        return value
    if isinstance(value, tv_tensors.Image):
        image: Tensor = F.resize(value, list(size), antialias=True)
        return image
    return nearest(value.as_subclass(Tensor), size)


def nearest(label: Tensor, size: tuple[int, int]) -> Tensor:
    """A label at another size, without mixing pixels."""
    plane = label[None] if label.dim() == 2 else label
    resized: Tensor = F.resize(plane, list(size), interpolation=NEAREST)
    return resized[0] if label.dim() == 2 else resized


@F.register_kernel(functional="horizontal_flip", tv_tensor_cls=Normals)  # type: ignore[untyped-decorator]
def _flip_normals(normals: Normals, *_: Any, **__: Any) -> Normals:
    """A mirrored direction points the other way in x."""
    mirrored = normals.as_subclass(Tensor).flip(-1)
    return Normals(torch.stack([-mirrored[0], mirrored[1], mirrored[2]]))


@F.register_kernel(functional="affine", tv_tensor_cls=Normals)  # type: ignore[untyped-decorator]
def _turn_normals(normals: Normals, *, angle: float, scale: float, **_: Any) -> Normals:
    """Turn the picture clockwise, and each direction with it; a pixel is valid where its nearest one was."""
    plain = normals.as_subclass(Tensor)
    valid = (plain.square().sum(0, keepdim=True) > 0).float()
    shape = {"angle": angle, "translate": [0, 0], "scale": scale, "shear": [0.0, 0.0], "fill": 0.0}
    mixed = F.affine_image(plain, interpolation=BILINEAR, **shape)
    kept = F.affine_image(valid, interpolation=InterpolationMode.NEAREST, **shape)

    cos, sin = math.cos(math.radians(angle)), math.sin(math.radians(angle))
    x, y, z = mixed
    turned = torch.stack([cos * x - sin * y, sin * x + cos * y, z])
    return Normals(unit(turned) * kept)


@F.register_kernel(functional="crop", tv_tensor_cls=Normals)  # type: ignore[untyped-decorator]
def _crop_normals(normals: Normals, top: int, left: int, height: int, width: int) -> Normals:
    return Normals(normals.as_subclass(Tensor)[..., top : top + height, left : left + width])


def padded(label: Tensor, task: Task, size: tuple[int, int]) -> Tensor:
    """A compact label at the upper left of a larger one that is ignored elsewhere."""
    whole = blank_label(task, size).to(label.dtype)
    whole[..., : label.shape[-2], : label.shape[-1]] = label
    return whole


def unit(vectors_3HW: Tensor) -> Tensor:
    """Unit vectors; zeros stay zeros. (F.normalize takes ten times as long over the first axis.)"""
    return vectors_3HW * vectors_3HW.square().sum(0, keepdim=True).clamp_min(1e-24).rsqrt()


def blank_label(task: Task, size: tuple[int, int]) -> Tensor:
    """The compact label of a sample that has none: every pixel is ignored."""
    channels = {"segmentation": (), "normals": (3,)}.get(task.type, (1,))
    floats = task.type in ("normals", "depth", "regression")
    return torch.full((*channels, *size), ignored_value(task), dtype=torch.float32 if floats else torch.uint8)


def ignored_value(task: Task) -> float:
    """What a pixel without a label holds."""
    if task.type == "normals":
        return 0.0
    return math.nan if task.type == "regression" else float(IGNORE)
