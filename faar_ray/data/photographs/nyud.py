"""NYUD_MT: NYUv2 with 40 classes, depth, normals and edges (795 train, 654 val)."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from faar_ray.data.photographs.files import (
    PhotographFiles,
    classes_plane,
    read_array,
    read_ids,
    read_plane,
    unit_normals,
)
from faar_ray.errors import DataError
from faar_ray.tasks import IGNORE

CLASSES = 40
DEEPEST = 100.0
"""Metres; depth above it is taken for millimetres."""
FOLDERS = {"semseg": "segmentation", "depth": "depth", "normals": "normals", "edge": "edge"}


class Nyud(PhotographFiles):
    """Ids in `gt_sets`; `images/*.jpg`, `segmentation/*.png`, `depth/*.npy`, `normals/*.npy`, `edge/*.npy`."""

    NAME, FOLDER, MARKER = "nyud", "NYUD_MT", "gt_sets/train.txt"
    SOURCE = "NYUD_MT comes as NYUD_MT.tgz with the code of ASTMT and MTI-Net; the photographs are NYU Depth v2's"

    def published_ids(self, split: str) -> list[str]:
        """Ids of `train` or `val`."""
        return read_ids(self.root / "gt_sets" / f"{split}.txt")

    def image_path(self, id: str) -> Path:
        """The photograph."""
        return self.root / "images" / f"{id}.jpg"

    def label_paths(self, task: str, id: str) -> list[Path]:
        """A picture of classes, or an array."""
        return [self.root / FOLDERS[task] / f"{id}{'.png' if task == 'semseg' else '.npy'}"]

    def label(self, task: str, id: str) -> Tensor:
        """0 is unlabelled in `segmentation`, no depth in `depth` and no direction in `normals`."""
        (path,) = self.label_paths(task, id)
        if task == "semseg":
            plane = read_plane(path)
            return classes_plane(path, np.where(plane == 0, IGNORE, plane.astype(np.int64) - 1), CLASSES)
        if task == "normals":
            return unit_normals(path, read_array(path, "HWC"))
        array = read_array(path, "HW")
        if task == "depth":
            return depth_metres(path, torch.from_numpy(array.astype(np.float32)))
        if not np.isin(array, (0, 1, IGNORE)).all():
            raise DataError(f"{path}: edges must be 0 or 1, got {array.min()}..{array.max()}")
        return torch.from_numpy(array.astype(np.uint8))[None]


def depth_metres(path: Path, depth_HW: Tensor) -> Tensor:
    """(1, H, W) metres, of metres or millimetres; 0 and what is not finite is ignored.

    Raises:
        DataError: negative depth.
    """
    known = depth_HW.isfinite() & (depth_HW != 0)
    if (depth_HW[known] < 0).any():
        raise DataError(f"{path}: depth must not be negative, got {float(depth_HW[known].min()):g}")
    in_millimetres = bool(known.any()) and float(depth_HW[known].max()) > DEEPEST
    return torch.where(known, depth_HW / (1000 if in_millimetres else 1), float(IGNORE))[None]
