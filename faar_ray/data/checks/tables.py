"""The findings of a survey as tables."""

from __future__ import annotations

from collections.abc import Iterator, Mapping

import numpy as np
from rich.table import Table

from faar_ray.config.data_section import DataConfig
from faar_ray.data.checks.survey import SplitTotals, Survey, TaskTotals
from faar_ray.data.datasets import SPLITS
from faar_ray.data.dense import MEAN_3, STD_3
from faar_ray.tasks import Task, tasks_of


def tables_of(config: DataConfig, found: Survey, used: Mapping[str, int]) -> Iterator[Table]:
    """Splits, tasks, and the classes of each segmentation.

    Args:
        config: the data set.
        found: of its published splits.
        used: images of train, val and test as `data.protocol` takes them.
    """
    taken = ", ".join(f"{used[split]:,} {split}" for split in SPLITS)
    yield _splits(found, f"{config.name}: {taken} (data.protocol: {config.protocol})")
    yield _tasks(found, tasks_of(config))
    for name, task in tasks_of(config).items():
        if task.classes:
            yield _classes(name, task, found)


def _splits(found: Survey, title: str) -> Table:
    table = Table("published", "images", "height x width", "mean", "std", title=title, title_justify="left")
    for split, total in found.splits.items():
        table.add_row(split, f"{total.samples:,}", _sizes(total), _levels(total.mean), _levels(total.std))
    table.add_row("ImageNet", "", "", _levels(MEAN_3), _levels(STD_3), style="dim")
    return table


def _sizes(total: SplitTotals) -> str:
    """The most frequent size with its share, and how many others there are; the range of sides."""
    if not total.sizes:
        return ""
    (height, width), count = total.sizes.most_common(1)[0]
    if len(total.sizes) == 1:
        return f"{height}x{width}"
    heights, widths = ([size[axis] for size in total.sizes] for axis in (0, 1))
    share = count / total.read
    return (
        f"{height}x{width} ({share:.0%}), {len(total.sizes)} sizes: "
        f"{min(heights)}..{max(heights)} x {min(widths)}..{max(widths)}"
    )


def _levels(values: object) -> str:
    return " ".join(f"{value:.3f}" for value in np.asarray(values))


def _tasks(found: Survey, tasks: Mapping[str, Task]) -> Table:
    table = Table("task", "type", "split", "labelled images", "labelled pixels", "values", title_justify="left")
    for name, task in tasks.items():
        for number, (split, total) in enumerate(found.splits.items()):
            label = total.tasks[name]
            images = f"{label.images:,} of {total.samples:,}"
            pixels = f"{label.labelled / label.pixels:.1%}" if label.pixels else ""
            first = (name, task.type) if number == 0 else ("", "")
            table.add_row(*first, split, images, pixels, _values(task, label))
        table.add_section()
    return table


def _values(task: Task, label: TaskTotals) -> str:
    if task.type in ("binary", "edge"):
        return f"{label.counts[1] / label.labelled:.1%} yes" if label.labelled else ""
    if task.type == "segmentation":
        return f"{int((label.counts > 0).sum())} of {task.channels} classes"
    if task.type == "normals" or not label.labelled:
        return ""
    written = [unit for unit in +label.units if unit != task.metric_unit]
    note = f" (files: {', '.join(written)})" if written else ""
    return f"{label.low:.3g}..{label.high:.3g} {task.metric_unit}{note}".rstrip()


def _classes(name: str, task: Task, found: Survey) -> Table:
    """Share of the labelled pixels, and number of images, of each class in each split."""
    columns = [text for split in found.splits for text in (f"{split}: pixels", "images")]
    table = Table("", name, *columns, title_justify="left")
    for number, text in enumerate(task.classes):
        cells = [cell for total in found.splits.values() for cell in _class_cells(total.tasks[name], number)]
        table.add_row(str(number), text, *cells)
    return table


def _class_cells(label: TaskTotals, number: int) -> tuple[str, str]:
    if not label.labelled:
        return "", ""
    return f"{label.counts[number] / label.labelled:.2%}", f"{int(label.class_images[number]):,}"
