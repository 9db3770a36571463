"""Data sets with a few tiny images, in the layout that the readers expect; where the real samples are."""

from __future__ import annotations

import json
import os
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image
from scipy.io import savemat

Array = np.ndarray[Any, Any]
SIZE = (24, 32)
SHARED = Path(os.environ.get("FAAR_RAY_SHARED_DATA") or Path(__file__).parents[4] / "shared" / "data")
needs_real_data = pytest.mark.skipif(not SHARED.is_dir(), reason=f"no real photographs at {SHARED}")


def photograph(path: Path, seed: int, size: tuple[int, int] = SIZE) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray(np.random.default_rng(seed).integers(0, 256, (*size, 3), np.uint8)).save(path, quality=95)


def save_plane(path: Path, plane: Array, *, palette: bool = False) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    picture = Image.fromarray(plane)
    if palette:
        picture = Image.fromarray(plane, "P") if plane.dtype == np.uint8 else picture
        picture.putpalette([value for index in range(256) for value in (index, 255 - index, index // 2)])
    picture.save(path)


def save_array(path: Path, array: Array) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    np.save(path, array)


def nyud_tree(root: Path, train: int = 8, val: int = 3, size: tuple[int, int] = SIZE) -> Path:
    """NYUD_MT; the first row of each label is none."""
    counts = {"train": train, "val": val}
    for split, count in counts.items():
        ids = [f"{split}{index:04d}" for index in range(count)]
        lists = root / "gt_sets" / f"{split}.txt"
        lists.parent.mkdir(parents=True, exist_ok=True)
        lists.write_text("\n".join(ids) + "\n")
        for index, id in enumerate(ids):
            rng = np.random.default_rng([index, len(split)])
            photograph(root / "images" / f"{id}.jpg", index, size)
            labels = rng.integers(1, 41, size, np.uint8)
            normals = rng.normal(size=(*size, 3)).astype(np.float32)
            depth = rng.uniform(0.5, 9.5, size).astype(np.float32)
            labels[0], normals[0], depth[0] = 0, 0, 0
            normals /= np.linalg.norm(normals, axis=2, keepdims=True).clip(1e-6)
            save_plane(root / "segmentation" / f"{id}.png", labels)
            save_array(root / "normals" / f"{id}.npy", normals)
            save_array(root / "depth" / f"{id}.npy", depth)
            save_array(root / "edge" / f"{id}.npy", rng.integers(0, 2, size).astype(np.uint8))
    return root


def person(parts: dict[str, Array], category: int = 15, mask: Array | None = None) -> Array:
    """One object as PASCAL-Part has it: class, number, mask, parts."""
    mask = np.any(list(parts.values()), axis=0) if mask is None else mask
    listed = np.empty((1, len(parts)) if parts else (0, 0), [("part_name", object), ("mask", object)])
    for index, (name, part) in enumerate(parts.items()):
        listed[0, index] = (name, part.astype(np.uint8))
    kinds = [("class", object), ("class_ind", object), ("mask", object), ("parts", object)]
    return np.array([("person", float(category), mask.astype(np.uint8), listed)], kinds)[None]


def save_parts(path: Path, id: str, objects: list[Array]) -> None:
    """A file of PASCAL-Part."""
    path.parent.mkdir(parents=True, exist_ok=True)
    listed = np.concatenate(objects, axis=1)
    anno = np.array([(id, listed)], [("imname", object), ("objects", object)])[None]
    savemat(path, {"anno": anno})


def pascal_tree(root: Path, train: int = 6, val: int = 3, size: tuple[int, int] = SIZE) -> Path:
    """PASCAL_MT; images of even number have a person, the first third of the labels is VOC's."""
    for split, count in {"train": train, "val": val}.items():
        ids = [f"2008_{split}{index:03d}" for index in range(count)]
        lists = root / "ImageSets" / "Context" / f"{split}.txt"
        lists.parent.mkdir(parents=True, exist_ok=True)
        lists.write_text("\n".join(ids) + "\n")
        for index, id in enumerate(ids):
            rng = np.random.default_rng([index, len(split)])
            photograph(root / "JPEGImages" / f"{id}.jpg", index, size)
            labels = rng.integers(0, 21, size, np.uint8)
            labels[0] = 255
            folder = "VOC12" if index % 3 == 0 else "pascal-context"
            save_plane(root / "semseg" / folder / f"{id}.png", labels, palette=True)
            head, torso = np.zeros(size, bool), np.zeros(size, bool)
            head[2:6, 4:9], torso[5:14, 3:10] = True, True
            objects = [person({"head": head, "torso": torso} if index % 2 == 0 else {}, mask=np.ones(size, bool))]
            save_parts(root / "human_parts" / f"{id}.mat", id, objects)
            label_map = np.full(size, 9, np.uint16)  # a class that NYUv2 has too
            label_map[:, size[1] // 2 :] = 2  # one that it has not
            (root / "pascal-context" / "trainval").mkdir(parents=True, exist_ok=True)
            savemat(root / "pascal-context" / "trainval" / f"{id}.mat", {"LabelMap": label_map})
            save_plane(root / "normals_distill" / f"{id}.png", rng.integers(0, 256, (*size, 3), np.uint8))
            save_plane(root / "sal_distill" / f"{id}.png", rng.integers(0, 256, size, np.uint8))
    return root


def cityscapes_tree(root: Path, train: int = 6, val: int = 3, size: tuple[int, int] = SIZE) -> Path:
    """Cityscapes, in two cities a split."""
    for split, count in {"train": train, "val": val}.items():
        for index in range(count):
            city = f"{split}city{index % 2}"
            name = f"{city}_{index:06d}_000019"
            rng = np.random.default_rng([index, len(split)])
            photograph(root / "leftImg8bit" / split / city / f"{name}_leftImg8bit.png", index, size)
            labels = rng.integers(0, 34, size, np.uint8)
            save_plane(root / "gtFine" / split / city / f"{name}_gtFine_labelIds.png", labels)
            disparity = rng.integers(0, 20000, size).astype(np.uint16)
            save_plane(root / "disparity" / split / city / f"{name}_disparity.png", disparity)
            camera = {"extrinsic": {"baseline": 0.2}, "intrinsic": {"fx": 2000.0}}
            path = root / "camera" / split / city / f"{name}_camera.json"
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_text(json.dumps(camera))
    return root
