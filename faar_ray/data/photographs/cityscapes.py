"""Cityscapes: 19 classes and disparity (2,975 train, 500 val)."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from faar_ray.data.photographs.files import PhotographFiles, classes_plane, read_plane
from faar_ray.errors import DataError
from faar_ray.tasks import IGNORE

TRAIN_IDS = (7, 8, 11, 12, 13, 17, 19, 20, 21, 22, 23, 24, 25, 26, 27, 28, 31, 32, 33)
"""Label ids of the classes 0 to 18; all others are ignored (cityscapesScripts, labels.py)."""
OF_ID = np.full(256, IGNORE, np.uint8)
OF_ID[list(TRAIN_IDS)] = np.arange(len(TRAIN_IDS))
BASELINE, FOCAL = 0.209313, 2262.52
"""Metres and pixels, of the cameras of most cities; used where there is no `camera` folder."""


class Cityscapes(PhotographFiles):
    """`leftImg8bit/<split>/<city>/<id>_leftImg8bit.png`, `gtFine/..._labelIds.png`, `disparity/..._disparity.png`."""

    NAME, FOLDER, MARKER = "cityscapes", "cityscapes", "leftImg8bit/train"
    SOURCE = "Cityscapes comes from www.cityscapes-dataset.com, after registration: leftImg8bit, gtFine, disparity"

    def published_ids(self, split: str) -> list[str]:
        """`<split>/<city>/<city>_<sequence>_<frame>`, in the order of their names."""
        folder = self.find(self.root / "leftImg8bit" / split)
        suffix = "_leftImg8bit.png"
        ids = sorted(f"{split}/{p.parent.name}/{p.name.removesuffix(suffix)}" for p in folder.glob(f"*/*{suffix}"))
        if not ids:
            raise DataError(f"{folder}: holds no */*{suffix}")
        return ids

    def image_path(self, id: str) -> Path:
        """The left camera's picture."""
        return self.root / "leftImg8bit" / f"{id}_leftImg8bit.png"

    def label_paths(self, task: str, id: str) -> list[Path]:
        """A picture of label ids, or of disparities."""
        if task == "semseg":
            return [self.root / "gtFine" / f"{id}_gtFine_labelIds.png"]
        return [self.root / "disparity" / f"{id}_disparity.png"]

    def label(self, task: str, id: str) -> Tensor:
        """19 classes; disparity d = (p - 1) / 256 in pixels, or metres, b f / d. p = 0 is ignored."""
        (path,) = self.existing(task, id)
        plane = read_plane(path)
        if task == "semseg":
            if plane.ndim != 2 or plane.dtype != np.uint8:
                raise DataError(f"{path}: must have 8 bits per pixel, got shape {plane.shape} of {plane.dtype}")
            return classes_plane(path, OF_ID[plane], len(TRAIN_IDS))

        if plane.ndim != 2:
            raise DataError(f"{path}: must have one value per pixel, got shape {plane.shape}")
        steps = torch.from_numpy(plane.astype(np.float32))
        disparity, known = (steps - 1) / 256, steps > 0
        if self.config.disparity == "depth":
            known &= disparity > 0
            disparity = self._baseline_focal(id) / disparity.where(known, 1)
        return torch.where(known, disparity, float(IGNORE))[None]

    def _baseline_focal(self, id: str) -> float:
        path = self.find(self.root / "camera" / f"{id}_camera.json")
        if not path.exists():
            return BASELINE * FOCAL
        try:
            camera = json.loads(path.read_text())
            return float(camera["extrinsic"]["baseline"]) * float(camera["intrinsic"]["fx"])
        except (OSError, ValueError, KeyError, TypeError) as error:
            raise DataError(f"{path}: must hold extrinsic.baseline and intrinsic.fx ({error})") from error
