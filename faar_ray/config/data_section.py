"""The `data` section: which data set, which tasks, how its images reach the model, on what it is judged."""

from __future__ import annotations

import importlib
from collections.abc import Mapping
from typing import Annotated, Any, Literal, Self

from pydantic import Field, field_validator, model_validator

from faar_ray.config.paths import STORAGE, storage_fault
from faar_ray.config.quoting import printable
from faar_ray.config.registries import DATASETS, load_builder, name_in
from faar_ray.config.section import Positive, Section
from faar_ray.config.task_definitions import PAPER_WEIGHTS, TYPES, WEIGHTS, Name, TaskDefinition, is_taken
from faar_ray.errors import ConfigError

Share = Annotated[float, Field(gt=0, lt=1)]
Side = Annotated[int, Field(ge=32)]


class AugmentConfig(Section):
    """What is drawn anew for each training image in each epoch; labels turn, scale and flip with their image."""

    preset: Literal["auto", "none", "pascal", "nyud"] = Field(
        "auto",
        description="Defaults of the keys below: what the papers do on the data set (auto), nothing but flips (none), "
        "or what they do on PASCAL or NYUD.",
    )
    flip: bool | None = Field(None, description="Mirror half of the images; null: as the preset (on in all).")
    rotation: Annotated[float, Field(ge=0, le=180)] | None = Field(
        None, description="Largest rotation to either side, degrees; null: as the preset."
    )
    scale: Annotated[tuple[Annotated[float, Field(gt=0)], ...], Field(min_length=1, strict=False)] | None = Field(
        None, description="Two numbers: a range of scales; more or one: scales to choose from."
    )
    crop: Share | None = Field(
        None, description="Smallest share of each side that a random crop keeps, before the image is resized."
    )
    colour: Annotated[float, Field(ge=0, le=1)] | None = Field(
        None, description="Strength of changes of brightness, contrast and saturation; null: none."
    )


class DataConfig(Section):
    """Which data set, which tasks, how many images."""

    name: Annotated[str, *name_in(DATASETS)] = Field("scenes", description="Data set.")
    tasks: Annotated[tuple[Name, ...], Field(min_length=1, strict=False)] = Field(
        ("semseg", "human_parts", "normals"), description="Tasks trained together, in this order."
    )
    root: Annotated[str, Field(min_length=1)] | None = Field(
        None,
        description=f"Folder of the data set, or folder or {STORAGE} of its shards (`python -m faar_ray.data pack "
        "--out`). null: `scenes` are made in the cache where they are missing; with a `storage.path` in object storage "
        "all machines take them from `<storage.path>/data`, where the search puts them.",
    )
    module: Annotated[str, Field(pattern=r"^[A-Za-z_][\w.]*$")] | None = Field(
        None, description="Python module to import first; it registers a data set (`faar_ray.data.register`)."
    )
    definitions: dict[Name, TaskDefinition] = Field(
        {}, description="Tasks of a data set of one's own; for `folder` they are read from its dataset.yaml."
    )
    domain: Literal["target", "source"] = Field("target", description="`scenes` only: the domain that is drawn from.")
    image_size: Side | Annotated[tuple[Side, Side], Field(strict=False)] = Field(
        64, description="Side of the images that the model sees, or [height, width], pixels."
    )
    train_images: Annotated[int, Field(ge=1)] = Field(720, description="`scenes` only: training images.")
    val_images: Annotated[int, Field(ge=1)] = Field(600, description="`scenes` only: validation images.")
    test_images: Annotated[int, Field(ge=1)] = Field(600, description="`scenes` only: test images, read once.")
    seed: Annotated[int, Field(ge=0)] = Field(
        0, description="Of the generator of `scenes`; of data read from files: which training images are val."
    )
    protocol: Literal["search", "papers"] = Field(
        "search",
        description="Data with a published val but no test: `search` holds out a part of train as val and uses the "
        "published val as test, read once; `papers` uses the published val for both.",
    )
    val_share: Share = Field(0.15, description="Part of the training images that `protocol: search` holds out.")
    evaluation: Literal["resized", "original"] = Field(
        "resized",
        description="Predictions and labels are compared at `image_size`, or at the labels' own size.",
    )
    absent_classes: Literal["skip", "zero"] = Field(
        "skip",
        description="Mean IoU: a class that is in neither labels nor predictions of a split is left out of the mean, "
        "or counts as 0 in a mean over all classes (MTLoRA's code and those made from it).",
    )
    depth_floor: Positive | None = Field(
        None,
        description="RMSE of `depth`: predictions below it count as it (1e-9 in MTLoRA's code and those made from it, "
        "so that none is negative); null: as they are.",
    )
    disparity: Literal["disparity", "depth"] = Field(
        "disparity", description="`cityscapes` only: `depth` is predicted as disparity (pixels), or in metres."
    )
    augment: AugmentConfig = Field(AugmentConfig(), description="Random changes of training images.")
    loader_workers: Annotated[int, Field(ge=0)] | Literal["auto"] = Field(
        "auto",
        description="Processes of each training worker that read samples ahead; auto: up to four for photographs, one "
        "less than its threads, or, beside a GPU, than the machine's CPUs. The images are the same for any number.",
    )
    cache: Literal["auto", "never"] = Field(
        "auto",
        description="auto: decoded images and labels are kept in a file of the cache that all trials of a machine map, "
        "if they fit in memory.",
    )

    @model_validator(mode="before")
    @classmethod
    def _described(cls, raw: Any) -> Any:
        """Import `module`; take the tasks of a data set that describes itself, e.g. in a dataset.yaml."""
        if not isinstance(raw, Mapping):
            return raw
        if isinstance(module := raw.get("module"), str):
            import_registering(module)
        name, root = raw.get("name", "scenes"), raw.get("root")
        entry = DATASETS.get(name) if isinstance(name, str) else None
        if entry is None or entry.describe is None or raw.get("definitions"):
            return raw
        if root is None and entry.needs_root:
            raise ValueError(f"root: must name the folder of {name}, got null")
        if root is not None and not isinstance(root, str):
            return raw
        try:
            definitions = load_builder(entry.describe)(root)
        except ConfigError as error:
            if str(error).startswith("data.root: "):  # told with its place in the config's file
                raise ValueError(str(error).removeprefix("data.")) from None
            raise
        tasks = raw.get("tasks") or tuple(definitions)
        return {**raw, "definitions": definitions, "tasks": tasks}

    @field_validator("root")
    @classmethod
    def _known_kind(cls, root: str | None) -> str | None:
        if root and (fault := storage_fault(root)):
            raise ValueError(fault)
        return root

    @model_validator(mode="after")
    def _parts_fit(self) -> Self:
        if len(set(self.tasks)) != len(self.tasks):
            raise ValueError(f"tasks: must be distinct, got {list(self.tasks)}")
        known = {**TYPES, **self.definitions}
        if taken := [name for name in self.definitions if is_taken(name)]:
            raise ValueError(f"definitions: must not be called {', '.join(taken)}: needed for something else")
        if strangers := [task for task in self.tasks if task not in known]:
            possible = ", ".join(self.definitions or TYPES)
            raise ValueError(f"tasks: must be of {possible}, got {', '.join(strangers)}")
        if self.name == "scenes" and self.size[0] != self.size[1]:
            raise ValueError(f"image_size: must be one number for scenes, got {list(self.size)}")
        return self

    def __hash__(self) -> int:
        """Of the values; `definitions` has no hash of its own."""
        return hash(self.model_dump_json())

    @property
    def size(self) -> tuple[int, int]:
        """Height and width of what the model sees, pixels."""
        return (self.image_size, self.image_size) if isinstance(self.image_size, int) else self.image_size

    @property
    def evaluated_as(self) -> str:
        """How numbers on these data are measured, short: `resized 448x448`, `original from 448x448`.

        Only numbers that were measured alike can be compared.
        """
        size = f"{self.size[0]}x{self.size[1]}"
        if self.name == "scenes":
            return ", ".join([size, *self.conventions])
        how = f"original from {size}" if self.evaluation == "original" else f"resized {size}"
        splits = ["published val"] if self.protocol == "papers" else []
        return ", ".join([how, *splits, *self.conventions])

    @property
    def conventions(self) -> list[str]:
        """Where metrics of these tasks are not the default ones: `absent classes 0`, `depth at least 1e-09`."""
        types = {self.definition(task).type for task in self.tasks}
        absent = ["absent classes 0"] if self.absent_classes == "zero" and "segmentation" in types else []
        floored = self.depth_floor is not None and "depth" in types
        return [*absent, f"depth at least {self.depth_floor:g}"] if floored else absent

    def definition(self, task: str) -> TaskDefinition:
        """What a task is: the data set's own definition, or the papers'; `weight` is never null.

        Classes are numbered where the data set has no names for them.
        """
        own = self.definitions.get(task)
        if own is None:
            entry, kind = DATASETS[self.name], TYPES[task]
            numbered = map(str, range(entry.channels.get(task, 2)))
            classes = tuple(entry.classes.get(task, numbered)) if kind == "segmentation" else ()
            pixels = self.name == "cityscapes" and task == "depth" and self.disparity == "disparity"
            unit = "px" if pixels else None
            own = TaskDefinition(type=kind, classes=classes, unit=unit, weight=PAPER_WEIGHTS.get(task))
        return own if own.weight is not None else own.model_copy(update={"weight": WEIGHTS[own.type]})


def import_registering(module: str) -> None:
    """Import a module that registers a data set; whatever it raises is the config's fault.

    Raises:
        ValueError: `module: ...` with what it raised.
    """
    try:
        importlib.import_module(module)
    except Exception as error:
        reason = printable(f"{type(error).__name__}: {error}")
        raise ValueError(f"module: must be a Python module that can be imported, got {module!r} ({reason})") from error
