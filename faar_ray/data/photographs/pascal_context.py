"""PASCAL_MT: PASCAL-Context for multi-task learning (4,998 train, 5,105 val)."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import torch
from scipy.io import loadmat
from scipy.io.matlab import MatReadError
from scipy.ndimage import laplace
from skimage.morphology import thin
from torch import Tensor

from faar_ray.config.paths import default_cache_dir
from faar_ray.data.photographs.files import Array, PhotographFiles, classes_plane, read_ids, read_plane, unit_normals
from faar_ray.errors import DataError
from faar_ray.storage.atomic import atomic_write
from faar_ray.tasks import IGNORE

CLASSES = 21
PERSON = 15
PARTS = {
    name: label
    for label, names in enumerate(
        (
            "hair head lear lebrow leye mouth nose rear rebrow reye",
            "neck torso",
            "luarm ruarm",
            "llarm lhand rlarm rhand",
            "luleg ruleg",
            "llleg lfoot rlleg rfoot",
        ),
        start=1,
    )
    for name in names.split()
}
"""Parts of PASCAL-Part -> head, torso, upper arms, lower arms, upper legs, lower legs."""
# fmt: off
NORMALS_IDS = np.array(
    [
        3, 4, 6, 9, 10, 11, 13, 15, 17, 18, 22, 23, 29, 30, 33, 34, 36, 37, 38, 39, 41, 43, 46, 49, 50, 51, 53,
        55, 56, 59, 61, 62, 65, 66, 68, 69, 72, 73, 78, 83, 84, 85, 87, 88, 95, 96, 101, 104, 105, 107, 111,
        113, 115, 122, 124, 135, 141, 142, 143, 146, 150, 154, 157, 158, 159, 165, 172, 174, 181, 183, 184, 191,
        193, 195, 197, 199, 202, 213, 215, 216, 219, 220, 223, 225, 228, 230, 232, 233, 238, 239, 242, 243, 246,
        250, 251, 252, 255, 260, 261, 263, 269, 272, 273, 275, 281, 283, 284, 285, 286, 287, 288, 290, 291, 292,
        293, 295, 304, 307, 309, 310, 314, 315, 319, 323, 329, 330, 331, 336, 342, 345, 349, 350, 351, 352, 355,
        357, 368, 370, 371, 374, 379, 380, 383, 384, 397, 401, 403, 405, 407, 408, 411, 412, 413, 414, 417, 419,
        421, 423, 427, 429, 430, 432, 440, 441, 442, 443, 444, 446, 454, 457,
    ]
)
# fmt: on
"""Labels of PASCAL-Context where the distilled normals count: classes that NYUv2 has too, and tvmonitor."""


class PascalContext(PhotographFiles):
    """Ids in `ImageSets/Context`; `JPEGImages`, `semseg`, `human_parts`, `normals_distill`, `sal_distill`."""

    NAME, FOLDER, MARKER = "pascal_context", "PASCAL_MT", "ImageSets/Context/train.txt"
    SOURCE = "PASCAL_MT comes as PASCAL_MT.tgz with the code of ASTMT and MTI-Net; its photographs are PASCAL VOC's"

    def published_ids(self, split: str) -> list[str]:
        """Ids of `train` or `val`."""
        return read_ids(self.find(self.root / "ImageSets" / "Context" / f"{split}.txt"))

    def select(self, ids: list[str]) -> list[str]:
        """All; where human parts are the only task, images with a person."""
        return self._with_person(ids) if self.config.tasks == ("human_parts",) else ids

    def image_path(self, id: str) -> Path:
        """The photograph."""
        return self.root / "JPEGImages" / f"{id}.jpg"

    def label_paths(self, task: str, id: str) -> list[Path]:
        """Pictures and MATLAB files."""
        label_map = self.root / "pascal-context" / "trainval" / f"{id}.mat"
        match task:
            case "semseg":
                voc = self.root / "semseg" / "VOC12" / f"{id}.png"
                return [voc if self.listing.find(voc) else self.root / "semseg" / "pascal-context" / f"{id}.png"]
            case "human_parts":
                return [self.root / "human_parts" / f"{id}.mat"]
            case "normals":
                return [self.root / "normals_distill" / f"{id}.png", label_map]
            case "saliency":
                return [self.root / "sal_distill" / f"{id}.png"]
            case _:
                return [label_map]

    def label(self, task: str, id: str) -> Tensor:
        """A compact label."""
        path, *others = self.existing(task, id)
        match task:
            case "semseg":
                return classes_plane(path, read_plane(path), CLASSES)
            case "human_parts":
                return human_parts(path)
            case "normals":
                return self._normals(path, others[0])
            case "saliency":
                plane = read_plane(path)
                if plane.ndim != 2:
                    raise DataError(f"{path}: must have one value per pixel, got shape {plane.shape}")
                return torch.from_numpy((plane / 255 > 0.5).astype(np.uint8))[None]
            case _:
                return torch.from_numpy(edges(label_map(path)).astype(np.uint8))[None]

    def _normals(self, path: Path, labels: Path) -> Tensor:
        normals = unit_normals(path, 2 * read_plane(path).astype(np.float32) / 255 - 1)
        valid = torch.from_numpy(np.isin(label_map(labels), NORMALS_IDS))
        if valid.shape != normals.shape[1:]:
            raise DataError(f"{labels}: LabelMap must have the size of {path}, got {tuple(valid.shape)}")
        return normals * valid

    def _with_person(self, ids: list[str]) -> list[str]:
        """Ids of images with a human part; every file is read once per machine, and the answer kept in the cache."""
        key = hashlib.sha256(json.dumps([str(self.root), ids]).encode()).hexdigest()[:16]
        path = default_cache_dir() / "pascal_persons" / f"{key}.json"
        try:
            kept: list[str] = json.loads(path.read_text())
            return kept
        except (OSError, ValueError):
            kept = [id for id in ids if (human_parts(self.existing("human_parts", id)[0]) != IGNORE).any()]
        try:
            with atomic_write(path) as scratch:
                scratch.write_text(json.dumps(kept))
        except OSError:  # slower next time
            return kept
        return kept


def read_mat(path: Path, variable: str) -> Any:
    """A variable of a MATLAB file.

    Raises:
        DataError: naming the file.
    """
    try:
        return loadmat(path, variable_names=[variable])[variable]
    except (OSError, LookupError, ValueError, TypeError, NotImplementedError, MatReadError) as error:
        reason = error.strerror if isinstance(error, OSError) and error.strerror else str(error) or type(error).__name__
        raise DataError(f"{path}: cannot be read as a MATLAB file with {variable} ({reason})") from error


def label_map(path: Path) -> Array:
    """(H, W) classes of PASCAL-Context, 1 to 459."""
    plane: Array = read_mat(path, "LabelMap")
    return plane


def edges(label_HW: Array) -> Array:
    """Borders between labels, one pixel wide."""
    borders = laplace(label_HW.astype(np.float64), mode="mirror") != 0
    thinned: Array = thin(borders)  # type: ignore[no-untyped-call]
    return thinned


def human_parts(path: Path) -> Tensor:
    """(H, W) six parts of all persons, painted in the file's order; 0 = none; an image without any is ignored (255)."""
    shape: tuple[int, int] | None = None
    painted: Array | None = None
    for category, mask_HW, parts in _objects(path):
        shape = mask_HW.shape if shape is None else shape
        if category != PERSON or not mask_HW.any():
            continue
        for name, part_HW in parts:
            if (label := PARTS.get(name)) is None:
                raise DataError(f"{path}: a person has the part {name!r}, which is not one of PASCAL-Part's")
            painted = np.zeros(shape, np.uint8) if painted is None else painted
            painted[part_HW > 0] = label
    if shape is None:
        raise DataError(f"{path}: holds no object")
    if painted is None or not painted.any():
        return torch.full(shape, IGNORE, dtype=torch.uint8)
    return torch.from_numpy(painted)


def _objects(path: Path) -> Iterator[tuple[int, Array, list[tuple[str, Array]]]]:
    """(category, mask, [(part, mask)]) of each object of a PASCAL-Part file."""
    try:
        for thing in read_mat(path, "anno")[0][0][1][0]:
            listed = thing[3]
            parts = [] if not listed.size else [(str(part[0][0]), part[1]) for part in listed[0]]
            yield int(thing[1][0][0]), thing[2], parts
    except (IndexError, TypeError, ValueError) as error:
        raise DataError(f"{path}: is no annotation of PASCAL-Part ({error})") from error
