"""`register`: a data set from Python, under a name that `data.name` takes."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any

from pydantic import ValidationError

from faar_ray.config.data_section import DataConfig
from faar_ray.config.registries import DATASETS, DatasetEntry
from faar_ray.config.task_definitions import TaskDefinition, is_taken
from faar_ray.config.validation_messages import issues_of
from faar_ray.data.datasets import Reader
from faar_ray.errors import ConfigError

SHIPPED = frozenset(DATASETS)
TaskLike = TaskDefinition | Mapping[str, Any] | str


def register(
    name: str,
    reader: Callable[[DataConfig, str], Reader],
    *,
    tasks: Mapping[str, TaskLike],
    classes: Mapping[str, Sequence[str]] | None = None,
    needs_root: bool = False,
) -> None:
    """Add a data set; called at the top of the module that `data.module` names, which all processes import.

    Args:
        name: value of `data.name`; the same name again takes the place of the first.
        reader: (data section, `train`, `val` or `test`) -> the reader of that split.
        tasks: what each task is: a definition, its keys, or its type alone, e.g. `{"depth": "depth"}`.
        classes: names of the classes of tasks of type `segmentation` whose definition has none.
        needs_root: whether it cannot be read without `data.root`.

    Raises:
        ConfigError: the name of a data set of this package, or a task that is none.
    """
    if name in SHIPPED:
        raise ConfigError(f"register: must be another name than {', '.join(sorted(SHIPPED))}, got {name!r}")
    if not tasks:
        raise ConfigError(f"register: {name}: must have a task or more")

    if taken := [task for task in tasks if is_taken(task)]:
        raise ConfigError(f"register: {name}: {taken[0]}: this name is needed for something else: choose another")

    named = classes or {}
    if strangers := [task for task in named if task not in tasks]:
        raise ConfigError(f"register: {name}: classes of {', '.join(strangers)}, which is none of its tasks")
    definitions = {task: _definition(f"{name}: {task}", like, named.get(task)) for task, like in tasks.items()}
    DATASETS[name] = DatasetEntry({}, open=reader, describe=lambda root: definitions, needs_root=needs_root)


def _definition(place: str, like: TaskLike, classes: Sequence[str] | None) -> TaskDefinition:
    if isinstance(like, TaskDefinition):
        return like
    raw: dict[str, Any] = {"type": like} if isinstance(like, str) else dict(like)
    if classes is not None:
        raw.setdefault("classes", tuple(classes))
    try:
        return TaskDefinition.model_validate(raw)
    except ValidationError as error:
        faults = issues_of(error, TaskDefinition, raw)
        raise ConfigError(
            [f"register: {place}: {f'{fault.name}: ' if fault.name else ''}{fault.text}" for fault in faults]
        ) from None
