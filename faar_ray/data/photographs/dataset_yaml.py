"""`dataset.yaml` of a folder of one's own: its tasks, where their labels lie, how its images are split."""

from __future__ import annotations

from functools import lru_cache
from pathlib import Path, PurePosixPath
from typing import Annotated, Literal, Self

from pydantic import AfterValidator, Field, ValidationError, field_validator, model_validator

from faar_ray.config.paths import folder_of, is_remote, storage_fault
from faar_ray.config.quoting import quote_value
from faar_ray.config.section import Section
from faar_ray.config.task_definitions import Name, TaskDefinition, is_taken
from faar_ray.config.validation_messages import Issue, format_issues, issues_of, raise_issues
from faar_ray.config.yaml_document import read_yaml
from faar_ray.data.packed.manifest import is_packed, read_manifest
from faar_ray.data.packed.transfer import remote_manifest
from faar_ray.errors import ConfigError, StorageError

FILE = "dataset.yaml"
SPLITS_FOLDER = "splits"


def _below(path: str) -> str:
    parts = PurePosixPath(path).parts
    if not parts or path.startswith("/") or ".." in parts or "\\" in path:
        raise ValueError(f"must be the name of a folder below the data set's, got {quote_value(path)}")
    return path


Below = Annotated[str, AfterValidator(_below)]
Share = Annotated[float, Field(ge=0, lt=1)]


class FolderTask(TaskDefinition):
    """One task of a folder, and where its labels lie."""

    folder: Below | None = Field(None, description="Folder of the label files; null: the task's name.")

    @property
    def definition(self) -> TaskDefinition:
        """The task without its folder."""
        return TaskDefinition.model_validate(self.model_dump(exclude={"folder"}))


class Shares(Section):
    """Parts of the images that are train, val and test."""

    train: Share = 0.7
    val: Share = 0.15
    test: Share = 0.15

    @model_validator(mode="after")
    def _add_up(self) -> Self:
        if min(self.train, self.val) == 0 or abs(self.train + self.val + self.test - 1) > 1e-6:
            total = self.train + self.val + self.test
            raise ValueError(f"must add up to 1, train and val above 0, got a sum of {total:g}")
        return self


class DatasetFile(Section):
    """What a dataset.yaml says."""

    version: Literal[1] = Field(description="Of this format.")
    images: Below = Field("images", description="Folder of the images.")
    shares: Shares | None = Field(
        None,
        description="How the images are split where there are no splits/train.txt, val.txt and test.txt; drawn by "
        "`data.seed`. null: 0.7, 0.15, 0.15.",
    )
    tasks: Annotated[dict[Name, FolderTask], Field(min_length=1)] = Field(description="The tasks, by name.")

    @field_validator("tasks")
    @classmethod
    def _names_are_free(cls, tasks: dict[str, FolderTask]) -> dict[str, FolderTask]:
        taken = [name for name in tasks if is_taken(name)]
        raise_issues(Issue((name,), "this name is needed for something else: choose another") for name in taken)
        return tasks


def describe(root: str) -> dict[str, TaskDefinition]:
    """The tasks of a folder, or of shards that were packed from one, by name.

    Raises:
        ConfigError: no dataset.yaml, or its faults, a line each: `FILE:LINE:COLUMN: key: rule, value`.
    """
    if is_remote(root):
        return dict(_remote_tasks(root))
    if is_packed(_folder(root)):
        return dict(read_manifest(_folder(root)).tasks)
    return {name: task.definition for name, task in read_dataset_file(root).tasks.items()}


@lru_cache(maxsize=16)
def _remote_tasks(uri: str) -> dict[str, TaskDefinition]:
    """Asked once in each process, for a config is checked often."""
    if fault := storage_fault(uri):
        raise ConfigError(f"data.root: {fault}")
    try:
        manifest = remote_manifest(uri, "data.root")
    except StorageError as error:
        raise ConfigError(str(error)) from None
    if manifest is None:
        command = f"python -m faar_ray.data pack folder --root FOLDER --out {uri}"
        raise ConfigError(f"data.root: {uri} holds no packed shards; upload them with: {command}")
    return manifest.tasks


def _folder(root: str) -> Path:
    folder = folder_of(root)
    if folder is None:
        raise ConfigError(f"data.root: must be a folder with a {FILE}, got {root!r}")
    if not folder.is_dir():
        raise ConfigError(f"data.root: no such folder: {folder}")
    return folder


def read_dataset_file(root: str) -> DatasetFile:
    """The dataset.yaml of a folder; kept until the file changes.

    Raises:
        ConfigError: as `describe`.
    """
    path = _folder(root) / FILE
    if not path.exists():
        raise ConfigError(f"{path}: no such file; write one with: python -m faar_ray.data init {root}")

    status = path.stat()
    return _read(path, status.st_mtime_ns, status.st_size)


@lru_cache(maxsize=64)
def _read(path: Path, changed: int, size: int) -> DatasetFile:
    document = read_yaml(path)
    try:
        file = DatasetFile.model_validate(document.data)
    except ValidationError as error:
        raise ConfigError(format_issues(issues_of(error, DatasetFile, document.data), document)) from None
    if faults := list(_missing(file, path.parent)):
        raise ConfigError(format_issues(faults, document))
    return file


def _missing(file: DatasetFile, root: Path) -> list[Issue]:
    """Folders that the file names and that are not there; splits that are given twice."""
    faults = []
    if not (root / file.images).is_dir():
        faults.append(Issue(("images",), f"no such folder: {root / file.images}"))
    for name, task in file.tasks.items():
        if not (folder := root / (task.folder or name)).is_dir():
            faults.append(Issue(("tasks", name, *(["folder"] if task.folder else [])), f"no such folder: {folder}"))
    if file.shares is not None and (root / SPLITS_FOLDER).is_dir():
        faults.append(Issue(("shares",), f"must not be given where there is {root / SPLITS_FOLDER}"))
    return faults
