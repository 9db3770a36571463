"""`folder`: anybody's data, a folder with a dataset.yaml, images, and a folder of label files for each task.

An image is known by its path below the images' folder without the suffix; its labels have the same one below theirs.
Any label may be missing.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path

import torch
from torch import Tensor

from faar_ray.config.data_section import DataConfig
from faar_ray.config.paths import folder_of
from faar_ray.config.validation_messages import did_you_mean
from faar_ray.data.photographs.dataset_yaml import FILE, SPLITS_FOLDER, DatasetFile, Shares, read_dataset_file
from faar_ray.data.photographs.files import check_sizes
from faar_ray.data.photographs.label_files import LABELS, read_label
from faar_ray.data.photographs.pixels import read_pixels
from faar_ray.data.photographs.splits import split_rows
from faar_ray.errors import ConfigError, DataError
from faar_ray.seeding import private

IMAGES = (".jpg", ".jpeg", ".png", ".bmp", ".webp", ".tif", ".tiff")
Names = Mapping[str, Path]


class Folder:
    """One split of a folder (`Reader`, `FileReader`, `FilePaths`).

    Raises:
        ConfigError: no `data.root`, or faults of its dataset.yaml.
        DataError: no images, two files of one name, a task without any label, a split that names no image.
    """

    def __init__(self, config: DataConfig, split: str) -> None:
        if config.root is None:
            raise ConfigError("data.root: must name the folder of the data set, got null")
        file, root = read_dataset_file(config.root), folder_of(config.root)
        assert root is not None
        self.definitions = {name: config.definition(name) for name in config.tasks}
        if strangers := [name for name in config.tasks if name not in file.tasks]:
            raise ConfigError(f"data.tasks: {root / FILE} has {', '.join(file.tasks)}, got {', '.join(strangers)}")

        self.images = files_by_name(root / file.images, IMAGES)
        if not self.images:
            raise DataError(f"{root / file.images}: no images ({', '.join(IMAGES)})")
        self.labels = {name: self._labels(name, root / (file.tasks[name].folder or name)) for name in config.tasks}
        self.ids = ids_of_split(config, split, root, file, self.images)

    def _labels(self, task: str, folder: Path) -> Names:
        labels = files_by_name(folder, LABELS)
        if not labels.keys() & self.images.keys():
            found, wanted = next(iter(labels), ""), next(iter(self.images))
            example = f"first label {found!r}, first image {wanted!r}" if found else f"no {', '.join(LABELS)}"
            raise DataError(f"{folder}: {task}: no file has the name of an image ({example})")
        return labels

    def __len__(self) -> int:
        """Number of samples."""
        return len(self.ids)

    def id(self, index: int) -> str:
        """Path of an image below the images' folder, without its suffix."""
        return self.ids[index]

    def image_bytes(self, index: int) -> bytes:
        """The image's file, as it lies."""
        return self.images[self.ids[index]].read_bytes()

    def sample(self, index: int, names: Sequence[str]) -> Mapping[str, Tensor | None]:
        """Image and labels as `Reader.sample` promises; None where there is no label file."""
        name = self.ids[index]
        out: dict[str, Tensor | None] = {}
        for quantity in names:
            if quantity == "image":
                out[quantity] = read_pixels(self.images[name])
            else:
                path = self.labels[quantity].get(name)
                out[quantity] = None if path is None else read_label(path, quantity, self.definitions[quantity])
        check_sizes(out, lambda quantity: self.files(index, quantity)[0])
        return out

    def files(self, index: int, name: str) -> list[Path]:
        """The file of an image or of a label; none for a label that is missing."""
        paths = self.images if name == "image" else self.labels[name]
        path = paths.get(self.ids[index])
        return [] if path is None else [path]


def files_by_name(folder: Path, suffixes: Sequence[str]) -> dict[str, Path]:
    """Files of these suffixes in a folder and below, by their path there without suffix, sorted; hidden ones apart.

    Raises:
        DataError: two files of one name.
    """
    found: dict[str, Path] = {}
    for path in sorted(folder.rglob("*")):
        if path.suffix.lower() not in suffixes or path.name.startswith(".") or not path.is_file():
            continue
        name = path.relative_to(folder).with_suffix("").as_posix()
        if name in found:
            raise DataError(f"{path}: has the same name as {found[name].name}: one of the two must go")
        found[name] = path
    return found


def ids_of_split(config: DataConfig, split: str, root: Path, file: DatasetFile, images: Names) -> list[str]:
    """Names of the images of a split: of the lists in splits/, or drawn by `data.seed`.

    Raises:
        DataError: a list without images, a name that is no image's, or that is in two lists; a share without images.
    """
    lists = root / SPLITS_FOLDER
    published = _listed(lists, images) if lists.is_dir() else _drawn(file.shares or Shares(), [*images], config.seed)
    part, rows = split_rows(config, split, {name: len(ids) for name, ids in published.items()})
    ids = published[part]
    if not rows:
        raise DataError(f"{root / FILE}: shares: leaves no image for {split}, of {len(images)}")
    return [ids[row] for row in rows]


def _drawn(shares: Shares, names: list[str], seed: int) -> dict[str, list[str]]:
    """Without a test share, test is as `data.protocol` says."""
    order = torch.randperm(len(names), generator=private("shares", seed)).tolist()
    train = round(shares.train * len(names))
    val = len(names) - train if shares.test == 0 else round(shares.val * len(names))
    bounds = {"train": (0, train), "val": (train, train + val)}
    if shares.test:
        bounds["test"] = (train + val, len(names))
    return {part: [names[row] for row in sorted(order[first:last])] for part, (first, last) in bounds.items()}


def _listed(folder: Path, images: Names) -> dict[str, list[str]]:
    published: dict[str, list[str]] = {}
    places: dict[str, str] = {}
    for part in ("train", "val", "test"):
        path = folder / f"{part}.txt"
        if part == "test" and not path.exists():
            continue
        ids = _names_in(path, images)
        for name, line in ids.items():
            if name in places:
                raise DataError(f"{path}:{line}: {name!r} is in {places[name]} too: an image must be in one split only")
            places[name] = f"{path.name}:{line}"
        published[part] = [*ids]
    return published


def _names_in(path: Path, images: Names) -> dict[str, int]:
    """Names of images, and their lines; a line may have the suffix, too."""
    try:
        lines = path.read_text("utf-8-sig").splitlines()
    except (OSError, UnicodeDecodeError) as fault:
        raise DataError(f"{path}: cannot be read as a list of images ({fault})") from None
    ids: dict[str, int] = {}
    for number, line in enumerate(lines, 1):
        if not (written := line.strip()):
            continue
        bare = Path(written)
        name = bare.with_suffix("").as_posix() if bare.suffix.lower() in IMAGES else written
        name = written if written in images else name
        if name not in images:
            raise DataError(f"{path}:{number}: no image is called {written!r}{did_you_mean(name, images)}")
        if name in ids:
            raise DataError(f"{path}:{number}: {written!r} is on line {ids[name]} already")
        ids[name] = number
    if not ids:
        raise DataError(f"{path}: no images")
    return ids
