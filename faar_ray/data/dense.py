"""Images with dense labels in memory, read as single samples or as shuffled and flipped batches.

Shapes: B batch, C channels, H W space. A sample holds, by the type of the task:
image (3, H, W) float32, normalised; segmentation (H, W) int64, 255 = ignore; binary and edge (1, H, W) float32, 0 or 1,
255 = ignore; normals (3, H, W) float32, unit, camera axes (x right, y down, z forward), zeros = ignore; depth
(1, H, W) float32, 255 or NaN = ignore; regression (1, H, W) float32, NaN = ignore.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from functools import lru_cache

import torch
from torch import Tensor
from torch.utils.data import Dataset

from faar_ray.config.task_definitions import TaskType
from faar_ray.data.loader import ready_on
from faar_ray.seeding import private
from faar_ray.tasks import Task

# ImageNet's, which timm's pretrained Swins were trained with.
MEAN_3 = (0.485, 0.456, 0.406)
STD_3 = (0.229, 0.224, 0.225)


class DenseDataset(Dataset[dict[str, Tensor]]):
    """Compact tensors (uint8, int8, half), all with the same number of rows; decoded when read."""

    def __init__(self, stored: Mapping[str, Tensor], tasks: Mapping[str, Task]) -> None:
        """Hold a split.

        Args:
            stored: columns (rows, ...) as a reader gives them: `image` and one per task.
            tasks: in this order.
        """
        self.stored = dict(stored)
        self.tasks: Mapping[str, Task] = dict(tasks)

    def __len__(self) -> int:
        """Number of images."""
        return len(self.stored["image"])

    def __getitem__(self, index: int) -> dict[str, Tensor]:
        """One decoded sample, as this file's docstring lists it."""
        return self._one(index, torch.zeros(len(self), dtype=torch.bool))

    def augmented(self, index: int, seed: int, epoch: int) -> dict[str, Tensor]:
        """One sample as training sees it in an epoch."""
        return self._one(index, self._drawn(seed, epoch)[1])

    def _one(self, index: int, flipped: Tensor) -> dict[str, Tensor]:
        row = range(len(self))[index]
        compact = self._rows(torch.tensor([row]), flipped)
        return {name: values[0] for name, values in decode(compact, self.tasks).items()}

    def _rows(self, rows: Tensor, flipped: Tensor) -> dict[str, Tensor]:
        """Compact rows, of which those in `flipped` are mirrored."""
        compact = {name: values.index_select(0, rows) for name, values in self.stored.items()}
        return flip(compact, flipped[rows], self.tasks)

    def _drawn(self, seed: int, epoch: int) -> tuple[Tensor, Tensor]:
        """An epoch's order, and which rows are mirrored."""
        stream = private("batches", seed, epoch)
        return torch.randperm(len(self), generator=stream), torch.rand(len(self), generator=stream) < 0.5

    def batches(
        self,
        *,
        batch_size: int,
        seed: int,
        epoch: int,
        train: bool,
        worker: int = 0,
        workers: int = 1,
        original: bool = False,
        device: torch.device | None = None,
    ) -> Iterator[dict[str, Tensor]]:
        """Batches as `SplitData` promises; of augmentation there are horizontal flips. Labels have the images' size."""
        count = len(self)
        order, flipped = torch.arange(count), torch.zeros(count, dtype=torch.bool)
        if train:
            order, flipped = self._drawn(seed, epoch)

        read = (self._rows(rows, flipped) for rows in parts_of(order, batch_size, worker, workers))
        yield from (decode(compact, self.tasks) for compact in ready_on(device, read))

    def close(self) -> None:
        """Nothing to end."""


def parts_of(order: Tensor, batch_size: int, worker: int, workers: int) -> Iterator[Tensor]:
    """A worker's rows of each batch: every `workers`-th row, so that all workers together see the same batches."""
    for start in range(0, len(order), batch_size):
        yield order[start : start + batch_size][worker::workers]


def flip(compact: dict[str, Tensor], which_B: Tensor, tasks: Mapping[str, Task]) -> dict[str, Tensor]:
    """Mirror the rows marked in which_B left to right, in place; a mirrored normal points the other way in x."""
    rows = which_B.nonzero()[:, 0]
    for name, values in compact.items():
        mirrored = values.index_select(0, rows).flip(-1)
        if name in tasks and tasks[name].type == "normals":
            mirrored[:, 0].neg_()
        values.index_copy_(0, rows, mirrored)
    return compact


def decode(compact: Mapping[str, Tensor], tasks: Mapping[str, Task]) -> dict[str, Tensor]:
    """Stored rows (B, ...) as models and losses take them."""
    return {
        name: _image(values) if name == "image" else _DECODERS[tasks[name].type](values)
        for name, values in compact.items()
    }


def _image(levels_B3HW: Tensor) -> Tensor:
    shift_311, scale_311 = _normalisation(levels_B3HW.device)
    return levels_B3HW.float().sub_(shift_311).mul_(scale_311)


@lru_cache
def _normalisation(device: torch.device) -> tuple[Tensor, Tensor]:
    """On the device once: a small copy from the host would make every batch wait."""
    with torch.inference_mode(False):
        mean_311, std_311 = (torch.tensor(values)[:, None, None] for values in (MEAN_3, STD_3))
        return (255 * mean_311).to(device), (1 / (255 * std_311)).to(device)


def unnormalise(image_3HW: Tensor) -> Tensor:
    """The inverse of the samples' normalisation: (..., 3, H, W) to 0..1, for pictures."""
    mean, std = torch.tensor(MEAN_3)[:, None, None], torch.tensor(STD_3)[:, None, None]
    return (image_3HW * std.to(image_3HW) + mean.to(image_3HW)).clamp(0, 1)


def _normals(steps_B3HW: Tensor) -> Tensor:
    """Unit vectors from 127ths, or as they are; zeros stay zeros. (F.normalize takes 30 times as long here.)"""
    vectors = steps_B3HW.float()
    return vectors * vectors.square().sum(1, keepdim=True).clamp_min_(1).rsqrt_()


_DECODERS: dict[TaskType, Callable[[Tensor], Tensor]] = {
    "segmentation": Tensor.long,
    "binary": Tensor.float,
    "edge": Tensor.float,
    "normals": _normals,
    "depth": Tensor.float,
    "regression": Tensor.float,
}
