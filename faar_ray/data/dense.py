"""Images with dense labels in memory, read as single samples or as shuffled and flipped batches.

Shapes: B batch, C channels, H W space. A sample holds, for the tasks asked for:
image (3, H, W) float32, normalised; semseg (H, W) int64, 255 = ignore; human_parts (H, W) int64, 0 = background, 255 =
ignore; saliency and edge (1, H, W) float32, 0 or 1; normals (3, H, W) float32, unit, camera axes (x right, y down,
z forward), zeros = ignore; depth (1, H, W) float32, metres, 255 = ignore.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence

import torch
from torch import Tensor
from torch.utils.data import Dataset

from faar_ray.seeding import private

# ImageNet's, which timm's pretrained Swins were trained with.
MEAN_3 = (0.485, 0.456, 0.406)
STD_3 = (0.229, 0.224, 0.225)


class DenseDataset(Dataset[dict[str, Tensor]]):
    """Compact tensors (uint8, int8, half), all with the same number of rows; decoded when read."""

    def __init__(
        self, stored: Mapping[str, Tensor], tasks: tuple[str, ...], classes: Mapping[str, Sequence[str]] | None = None
    ) -> None:
        """Hold a split.

        Args:
            stored: columns (rows, ...) as a reader gives them: `image` and one per task.
            tasks: in this order.
            classes: names of the classes, by task.
        """
        self.stored = dict(stored)
        self.tasks = tasks
        self.classes = dict(classes or {})

    def __len__(self) -> int:
        """Number of images."""
        return len(self.stored["image"])

    def __getitem__(self, index: int) -> dict[str, Tensor]:
        """One decoded sample, as this file's docstring lists it."""
        row = range(len(self))[index]
        sample = decode({name: values[row : row + 1] for name, values in self.stored.items()})
        return {name: values[0] for name, values in sample.items()}


def batches(
    dataset: DenseDataset, *, batch_size: int, seed: int, epoch: int, train: bool, worker: int = 0, workers: int = 1
) -> Iterator[dict[str, Tensor]]:
    """Batches of decoded samples, (B, ...) each; the last one may be smaller.

    `train=True`: order and horizontal flips depend on (seed, epoch) and on nothing else. `train=False`: in order.
    Of several workers each gets every `workers`-th row of the same batches. Its part of the last batch may be empty.
    """
    count = len(dataset)
    order, flipped = torch.arange(count), torch.zeros(count, dtype=torch.bool)
    if train:
        stream = private("batches", seed, epoch)
        order = torch.randperm(count, generator=stream)
        flipped = torch.rand(count, generator=stream) < 0.5

    for start in range(0, count, batch_size):
        rows = order[start : start + batch_size][worker::workers]
        compact = {name: values.index_select(0, rows) for name, values in dataset.stored.items()}
        yield decode(flip(compact, flipped[rows]))


def flip(compact: dict[str, Tensor], which_B: Tensor) -> dict[str, Tensor]:
    """Mirror the rows marked in which_B left to right, in place; a mirrored normal points the other way in x."""
    rows = which_B.nonzero()[:, 0]
    for name, values in compact.items():
        mirrored = values.index_select(0, rows).flip(-1)
        if name == "normals":
            mirrored[:, 0].neg_()
        values.index_copy_(0, rows, mirrored)
    return compact


def decode(compact: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """Stored rows (B, ...) as models and losses take them."""
    return {name: _DECODERS[name](values) for name, values in compact.items()}


def _image(levels_B3HW: Tensor) -> Tensor:
    mean, std = torch.tensor(MEAN_3)[:, None, None], torch.tensor(STD_3)[:, None, None]
    return levels_B3HW.float().sub_(255 * mean).mul_(1 / (255 * std))


def unnormalise(image_3HW: Tensor) -> Tensor:
    """The inverse of the samples' normalisation: (..., 3, H, W) to 0..1, for pictures."""
    mean, std = torch.tensor(MEAN_3)[:, None, None], torch.tensor(STD_3)[:, None, None]
    return (image_3HW * std.to(image_3HW) + mean.to(image_3HW)).clamp(0, 1)


def _normals(steps_B3HW: Tensor) -> Tensor:
    """Unit vectors from 127ths; zeros stay zeros. (F.normalize takes 30 times as long over a middle axis.)"""
    vectors = steps_B3HW.float()
    return vectors * vectors.square().sum(1, keepdim=True).clamp_min_(1).rsqrt_()


_DECODERS = {
    "image": _image,
    "semseg": Tensor.long,
    "human_parts": Tensor.long,
    "saliency": Tensor.float,
    "normals": _normals,
    "depth": Tensor.float,
    "edge": Tensor.float,
}
