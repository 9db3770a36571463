"""A folder of somebody's data, written by the test: photographs, and labels of six kinds, some of them missing."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from faar_ray.config.trial import DataConfig

DATASET = """\
version: 1
tasks:
  rooms:
    type: segmentation
    classes: [floor, wall, lamp]
    colours: ["#101010", "#808080", "#ff8000"]
    values: [0, 7, 300]
  pets: {type: segmentation, classes: [none, cat], folder: Pets}
  marked: {type: binary}
  slope: {type: normals}
  far: {type: depth, scale: 0.001, ignore: 0}
  heat: {type: regression, unit: K, weight: 0.5}
"""
HEIGHT, WIDTH = 24, 32
Make = Callable[..., Path]


def write_folder(root: Path, images: int = 12, dataset: str = DATASET) -> Path:
    """Images `0000`... ; every third one has no `heat`, the `pets` of a second one is missing."""
    for folder in ("images", "rooms", "Pets", "marked", "slope", "far", "heat"):
        (root / folder).mkdir(parents=True, exist_ok=True)
    for index in range(images):
        _write_sample(root, f"{index:04d}", index)
    (root / "dataset.yaml").write_text(dataset)
    return root


def _write_sample(root: Path, name: str, index: int) -> None:
    rng = np.random.default_rng(index)
    block_HW = np.kron(rng.integers(0, 3, (3, 4)), np.ones((8, 8), int))
    Image.fromarray((block_HW[..., None] * 60 + rng.integers(0, 60, (HEIGHT, WIDTH, 3))).astype(np.uint8)).save(
        root / "images" / f"{name}.jpg"
    )
    Image.fromarray(np.array([0, 7, 300], np.uint16)[block_HW]).save(root / "rooms" / f"{name}.png")
    if index % 2 == 0:
        np.savez(root / "Pets" / f"{name}.npz", mask=(block_HW == 2))
    Image.fromarray(((block_HW == 1) * 255).astype(np.uint8)).save(root / "marked" / f"{name}.png")
    vectors = np.zeros((HEIGHT, WIDTH, 3), np.float32)
    vectors[..., 2] = -1
    np.save(root / "slope" / f"{name}.npy", vectors)
    Image.fromarray((1000 * block_HW).astype(np.uint16)).save(root / "far" / f"{name}.png")
    if index % 3:
        np.save(root / "heat" / f"{name}.npy", block_HW.astype(np.float32) - 1)


@pytest.fixture(scope="session")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """One that no test changes."""
    return write_folder(tmp_path_factory.mktemp("own"))


@pytest.fixture
def make_folder(tmp_path: Path) -> Make:
    """Writes one of a test's own."""
    return lambda **changes: write_folder(tmp_path / "own", **changes)


def data_config(root: Path, **changes: Any) -> DataConfig:
    """The data section for a folder."""
    return DataConfig.model_validate({"name": "folder", "root": str(root), "image_size": 32, **changes})
