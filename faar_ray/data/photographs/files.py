"""What readers of published data sets share: finding the folder, listing ids, reading arrays and label pictures."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from PIL import Image
from torch import Tensor

from faar_ray.config.data_section import DataConfig
from faar_ray.config.paths import folder_of
from faar_ray.data.datasets import Inspection
from faar_ray.data.photographs.listing import Listing
from faar_ray.data.photographs.pixels import read_pixels
from faar_ray.data.photographs.splits import split_rows
from faar_ray.errors import ConfigError, DataError

Array = np.ndarray[Any, Any]


class PhotographFiles(ABC):
    """A split of a published data set in files (`Reader`, `FileReader`, `FilePaths`, `Inspectable`).

    Args:
        config: folder, tasks and protocol.
        split: train, val or test.

    Raises:
        ConfigError: the folder is no such data set.
        DataError: an empty or repeated list of ids.
    """

    NAME: str
    """As `data.name` has it."""
    FOLDER: str
    """Usual name of its folder."""
    MARKER: str
    """A path inside by which it is recognised."""
    SOURCE: str
    """Where it comes from, for messages."""

    def __init__(self, config: DataConfig, split: str) -> None:
        self.config, self.listing = config, Listing()
        self.root = self._find_root(config.root)
        published = {name: self.published_ids(name) for name in ("train", "val")}
        self.published, rows = split_rows(config, split, {name: len(ids) for name, ids in published.items()})
        self.ids = self.select([published[self.published][row] for row in rows])

    @abstractmethod
    def published_ids(self, split: str) -> list[str]:
        """Ids of `train` or `val`, in the published order."""

    @abstractmethod
    def image_path(self, id: str) -> Path:
        """The photograph of an id."""

    @abstractmethod
    def label_paths(self, task: str, id: str) -> list[Path]:
        """The files that a label is made from."""

    @abstractmethod
    def label(self, task: str, id: str) -> Tensor:
        """A compact label.

        Raises:
            DataError: naming the file.
        """

    def existing(self, task: str, id: str) -> list[Path]:
        """`label_paths` as they are written on disk."""
        return [self.find(path) for path in self.label_paths(task, id)]

    def find(self, path: Path) -> Path:
        """A file or folder as it is written on disk: in the usual case, or else in any other."""
        return path if path.exists() else self.listing.find(path) or path

    def files(self, index: int, name: str) -> list[Path]:
        """The files of an image or of a label, whether they exist or not; none of them is opened."""
        id = self.ids[index]
        paths = [self.image_path(id)] if name == "image" else self.label_paths(name, id)
        return [self.listing.find(path) or path for path in paths]

    def inspect(self, index: int, task: str) -> Inspection:
        """Nothing more than its labels say, by default."""
        return Inspection()

    def select(self, ids: list[str]) -> list[str]:
        """Those ids that the tasks need; all by default."""
        return ids

    def __len__(self) -> int:
        """Number of samples."""
        return len(self.ids)

    def id(self, index: int) -> str:
        """Name of a sample."""
        return self.ids[index]

    def image_bytes(self, index: int) -> bytes:
        """The photograph's file."""
        path = self.find(self.image_path(self.ids[index]))
        try:
            return path.read_bytes()
        except OSError as error:
            raise DataError(f"{path}: cannot be read ({error.strerror})") from error

    def sample(self, index: int, names: Sequence[str]) -> Mapping[str, Tensor | None]:
        """The image and labels of a sample."""
        id = self.ids[index]
        sample = {name: self._image(id) if name == "image" else self.label(name, id) for name in names}
        check_sizes(sample, lambda name: self.files(index, name)[0])
        return sample

    def _image(self, id: str) -> Tensor:
        return read_pixels(self.find(self.image_path(id)))

    @classmethod
    def _find_root(cls, root: str | None) -> Path:
        folder = folder_of(root)
        if folder is None:
            raise ConfigError(f"data.root: must name the folder of {cls.NAME}, got {root}")
        marker, listing = Path(cls.MARKER), Listing()
        for candidate in (folder, folder / cls.FOLDER) if folder.is_dir() else ():
            if (found := listing.find(candidate / marker)) is not None:
                return found.parents[len(marker.parts) - 1]
        reason = f"has no {cls.MARKER}" if folder.is_dir() else "is no folder"
        raise ConfigError(f"data.root: {folder} {reason}, so it is not {cls.NAME}. {cls.SOURCE}")


def check_sizes(sample: Mapping[str, Tensor | None], file_of: Callable[[str], Path]) -> None:
    """Check that labels have the size of their image.

    Args:
        sample: `image`, if it is to be compared, and labels, None for those that are missing.
        file_of: the file of a quantity.

    Raises:
        DataError: naming the file.
    """
    image = sample.get("image")
    for task, label in sample.items():
        if image is not None and label is not None and label.shape[-2:] != image.shape[-2:]:
            (height, width), (rows, columns) = image.shape[-2:], label.shape[-2:]
            raise DataError(
                f"{file_of(task)}: {task}: must be {height}x{width} (height x width), as {file_of('image')}, "
                f"got {rows}x{columns}"
            )


def read_ids(path: Path) -> list[str]:
    """One id a line.

    Raises:
        DataError: the file is missing, empty, or repeats an id.
    """
    try:
        ids = path.read_text().split()
    except OSError as error:
        raise DataError(f"{path}: cannot be read ({error.strerror})") from error
    if not ids:
        raise DataError(f"{path}: lists no image")
    if len(set(ids)) < len(ids):
        repeated = next(id for id in ids if ids.count(id) > 1)
        raise DataError(f"{path}: lists {repeated} more than once")
    return ids


def read_plane(path: Path) -> Array:
    """A label picture as (H, W) or (H, W, C) integers; of a palette the indices.

    Raises:
        DataError: naming the file.
    """
    try:
        with Image.open(path) as opened:
            return np.array(opened)
    except OSError as error:
        raise DataError(f"{path}: cannot be read as a picture ({error.strerror or error})") from error


def read_array(path: Path, shape: str) -> Array:
    """A .npy file.

    Args:
        path: of the file.
        shape: `HW` or `HWC`, the axes that it must have.

    Raises:
        DataError: naming the file.
    """
    try:
        array: Array = np.load(path, allow_pickle=False)
    except (OSError, ValueError) as error:
        reason = error.strerror if isinstance(error, OSError) and error.strerror else str(error)
        raise DataError(f"{path}: cannot be read as an array ({reason})") from error
    if array.ndim == len(shape) + 1 and array.shape[-1] == 1:
        array = array[..., 0]
    if array.ndim != len(shape):
        raise DataError(f"{path}: must have the axes {shape}, got shape {array.shape}")
    return array


def classes_plane(path: Path, plane: Array, classes: int) -> Tensor:
    """(H, W) uint8 labels, checked: 0 to classes - 1, or 255.

    Raises:
        DataError: naming file and value.
    """
    if plane.ndim != 2:
        raise DataError(f"{path}: must have one value per pixel, got shape {plane.shape}")
    values = np.unique(plane)
    if (odd := values[(values >= classes) & (values != 255)]).size or (odd := values[values < 0]).size:
        raise DataError(f"{path}: labels must be 0..{classes - 1} or 255 (ignored), got {odd[0]}")
    return torch.from_numpy(plane.astype(np.uint8))


def unit_normals(path: Path, normals_HW3: Array) -> Tensor:
    """(3, H, W) float32 unit vectors; what has no length stays zero.

    Raises:
        DataError: no three components, or values that are not finite.
    """
    if normals_HW3.ndim != 3 or normals_HW3.shape[2] != 3:
        raise DataError(f"{path}: must have three components per pixel, got shape {normals_HW3.shape}")
    vectors = torch.from_numpy(np.ascontiguousarray(normals_HW3.transpose(2, 0, 1), dtype=np.float32))
    if not vectors.isfinite().all():
        raise DataError(f"{path}: must be finite")
    return torch.nn.functional.normalize(vectors, dim=0)
