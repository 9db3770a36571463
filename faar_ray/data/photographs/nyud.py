"""NYUD_MT: NYUv2 with 40 classes, depth, normals and edges (795 train, 654 val)."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from faar_ray.data.datasets import Inspection
from faar_ray.data.photographs.files import (
    Array,
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
UNIT_TOLERANCE, MOST_ODD = 0.1, 0.01
"""How far from 1 lengths of normals may be, and the share of those that may be farther."""
FOLDERS = {"semseg": "segmentation", "depth": "depth", "normals": "normals", "edge": "edge"}


class Nyud(PhotographFiles):
    """Ids in `gt_sets`; `images/*.jpg`, `segmentation/*.png`, `depth/*.npy`, `normals/*.npy`, `edge/*.npy`."""

    NAME, FOLDER, MARKER = "nyud", "NYUD_MT", "gt_sets/train.txt"
    SOURCE = "NYUD_MT comes as NYUD_MT.tgz with the code of ASTMT and MTI-Net; the photographs are NYU Depth v2's"

    def published_ids(self, split: str) -> list[str]:
        """Ids of `train` or `val`."""
        return read_ids(self.find(self.root / "gt_sets" / f"{split}.txt"))

    def image_path(self, id: str) -> Path:
        """The photograph."""
        return self.root / "images" / f"{id}.jpg"

    def label_paths(self, task: str, id: str) -> list[Path]:
        """A picture of classes, or an array."""
        return [self.root / FOLDERS[task] / f"{id}{'.png' if task == 'semseg' else '.npy'}"]

    def label(self, task: str, id: str) -> Tensor:
        """0 is unlabelled in `segmentation`, no depth in `depth` and no direction in `normals`."""
        (path,) = self.existing(task, id)
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

    def inspect(self, index: int, task: str) -> Inspection:
        """The unit of depth; values that are not finite; vectors that are no unit vectors."""
        if task not in ("depth", "normals"):
            return Inspection()
        (path,) = self.existing(task, self.ids[index])
        if task == "normals":
            lengths = np.linalg.norm(read_array(path, "HWC").astype(np.float32), axis=2)
            return Inspection(faults=odd_lengths(lengths[lengths > 0]))

        depth_HW = torch.from_numpy(read_array(path, "HW").astype(np.float32))
        unit = "" if not known_depth(depth_HW).any() else "mm" if in_millimetres(depth_HW) else "m"
        odd = int((~depth_HW.isfinite()).sum())
        return Inspection(unit, (f"{odd:,} pixels are not finite, so without label",) if odd else ())


def odd_lengths(lengths: Array) -> tuple[str, ...]:
    """A fault where more than one in a hundred vectors is not of unit length."""
    odd = np.abs(lengths - 1) > UNIT_TOLERANCE
    if not odd.size or odd.mean() <= MOST_ODD:
        return ()
    return (f"must hold unit vectors or zeros, got lengths {lengths.min():.3g}..{lengths.max():.3g}",)


def known_depth(depth_HW: Tensor) -> Tensor:
    """(H, W) bool; 0 and what is not finite is none."""
    known: Tensor = depth_HW.isfinite() & (depth_HW != 0)
    return known


def in_millimetres(depth_HW: Tensor) -> bool:
    """Whether a file's depth is in millimetres, not metres, by its largest value."""
    known = known_depth(depth_HW)
    return bool(known.any()) and float(depth_HW[known].max()) > DEEPEST


def depth_metres(path: Path, depth_HW: Tensor) -> Tensor:
    """(1, H, W) metres, of metres or millimetres; 0 and what is not finite is ignored.

    Raises:
        DataError: negative depth.
    """
    known = known_depth(depth_HW)
    if (depth_HW[known] < 0).any():
        raise DataError(f"{path}: depth must not be negative, got {float(depth_HW[known].min()):g}")
    return torch.where(known, depth_HW / (1000 if in_millimetres(depth_HW) else 1), float(IGNORE))[None]
