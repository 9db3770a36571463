"""`python -m faar_ray.data init FOLDER`: a first dataset.yaml from what lies in a folder."""

from __future__ import annotations

import json
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from faar_ray.config.quoting import printable
from faar_ray.config.task_definitions import is_taken
from faar_ray.data.photographs.dataset_yaml import FILE, SPLITS_FOLDER, describe
from faar_ray.data.photographs.folder import IMAGES, files_by_name
from faar_ray.data.photographs.guesses import LOOKED_AT, Guess, guess
from faar_ray.data.photographs.label_files import LABELS
from faar_ray.errors import DataError
from faar_ray.storage.atomic import atomic_write

IMAGE_FOLDERS = ("images", "image", "imgs", "img", "rgb", "photos", "photographs", "pictures", "jpegimages")


@dataclass(frozen=True, slots=True)
class Written:
    """What `init` wrote."""

    path: Path
    images: int
    tasks: Mapping[str, Guess]
    skipped: Mapping[str, str]
    """Folders that are no tasks, and why."""


def write_dataset_file(root: Path) -> Written:
    """Write dataset.yaml.

    Raises:
        DataError: it exists, no folder of images or of labels is found, or a file cannot be read or written.
    """
    path = root / FILE
    if not root.is_dir():
        raise DataError(f"{root}: no such folder")
    if path.exists():
        raise DataError(f"{path}: exists, and is never overwritten; move it away to have another one written")

    image_folder = _image_folder(root)
    images = files_by_name(image_folder, IMAGES)
    if not images:
        raise DataError(f"{image_folder}: no images ({', '.join(IMAGES)})")

    tasks, folders, skipped = _tasks(root, image_folder, set(images))
    if not tasks:
        reasons = "".join(f"\n  {name}: {reason}" for name, reason in skipped.items())
        raise DataError(f"{root}: no folder holds labels under the names of the images{reasons}")
    text = _text(root, image_folder.name, len(images), tasks, folders, skipped)
    try:
        with atomic_write(path) as scratch:
            scratch.write_text(text, encoding="utf-8")
    except OSError as error:
        raise DataError(f"{path}: cannot be written ({error.strerror})") from None
    describe(str(root))
    return Written(path, len(images), tasks, skipped)


def _image_folder(root: Path) -> Path:
    folders = {folder.name.lower(): folder for folder in _folders(root)}
    for name in IMAGE_FOLDERS:
        if name in folders:
            return folders[name]
    raise DataError(f"{root}: no folder of images; it must be called images (or {', '.join(IMAGE_FOLDERS[1:])})")


def _folders(root: Path) -> list[Path]:
    return [path for path in sorted(root.iterdir()) if path.is_dir() and not path.name.startswith(".")]


def _tasks(root: Path, image_folder: Path, images: set[str]) -> tuple[dict[str, Guess], dict[str, str], dict[str, str]]:
    """Guesses and folders by task; other folders, and why they are none."""
    tasks: dict[str, Guess] = {}
    folders: dict[str, str] = {}
    skipped: dict[str, str] = {}
    for folder in _folders(root):
        if folder in (image_folder, root / SPLITS_FOLDER):
            continue
        try:
            labels = files_by_name(folder, LABELS)
            shared = [path for name, path in labels.items() if name in images]
            if not shared:
                raise DataError(_unmatched(labels, images))
            guessed = guess(folder.name, shared)
        except DataError as fault:
            skipped[folder.name] = printable(str(fault))
            continue
        name = _task_name(folder.name, tasks)
        tasks[name], folders[name] = guessed, folder.name
    return tasks, folders, skipped


def _unmatched(labels: Mapping[str, Path], images: set[str]) -> str:
    if not labels:
        return f"no label files ({', '.join(LABELS)})"
    return f"no file has the name of an image (first {min(labels)!r}, first image {min(images)!r})"


def _task_name(folder: str, taken: Mapping[str, Any]) -> str:
    """A name that a task may have; `folder:` keeps the folder's own."""
    name = re.sub(r"[^a-z0-9]+", "_", folder.lower()).strip("_")
    name = name if name and name[0].isalpha() else f"task_{name}".rstrip("_")
    name = f"{name}_labels" if is_taken(name) else name
    while name in taken:
        name += "_2"
    return name


def _text(
    root: Path,
    image_folder: str,
    images: int,
    tasks: Mapping[str, Guess],
    folders: Mapping[str, str],
    skipped: Mapping[str, str],
) -> str:
    """The file; what was guessed stands behind the keys, what to look at above them."""
    lines = [
        f"# Written by `python -m faar_ray.data init` from {images} images and up to {LOOKED_AT} label files of each",
        "# task. Everything marked `guessed` is from their values: check it.",
        "version: 1",
        f"images: {_plain(image_folder)}",
    ]
    if not (root / SPLITS_FOLDER).is_dir():
        lines.append("shares: {train: 0.7, val: 0.15, test: 0.15}  # drawn by data.seed; or write splits/*.txt")
    lines.append("tasks:")
    for name, guessed in tasks.items():
        lines += ["", f"  {name}:", *(f"    # check: {text}" for text in guessed.check)]
        lines.append(f"    type: {guessed.type}  # guessed")
        if folders[name] != name:
            lines.append(f"    folder: {_plain(folders[name])}")
        for key, value in guessed.keys.items():
            lines += _key(key, value)
    if skipped:
        lines += ["", "# Folders that are no tasks:", *(f"#   {name}: {reason}" for name, reason in skipped.items())]
    return "\n".join(lines) + "\n"


def _key(key: str, value: Any) -> list[str]:
    if not isinstance(value, list):
        return [f"    {key}: {_plain(value)}  # guessed"]
    words = [_plain(item) for item in value]
    if len(words) <= 8:
        return [f"    {key}: [{', '.join(words)}]  # guessed"]
    return [f"    {key}:  # guessed", *(f"      - {word}" for word in words)]


def _plain(value: Any) -> str:
    """A value as YAML; text in quotes where it needs them."""
    if isinstance(value, str):
        bare = re.fullmatch(r"[A-Za-z_]\w*", value) and value.lower() not in ("null", "true", "false")
        return value if bare else json.dumps(value)
    return f"{value:g}" if isinstance(value, float) else str(value)


def next_commands(root: Path, written: Written) -> Sequence[str]:
    """What to do with the file that was written."""
    return (
        f"check what it guessed: {written.path}",
        f"python -m faar_ray.data check folder --root {root}",
        f"python -m faar_ray.data show folder --root {root}",
        f"then train on it: `data: {{name: folder, root: {root}, image_size: 224}}` in a search space",
    )
