"""Mean final ranks over seeds, layer by task: what does not differ from the mean of all adapters is grey."""

from __future__ import annotations

import math
from collections.abc import Sequence
from pathlib import Path

import numpy as np
from matplotlib.axes import Axes
from matplotlib.colors import LinearSegmentedColormap, TwoSlopeNorm, to_rgba
from matplotlib.figure import Figure
from matplotlib.transforms import ScaledTranslation
from numpy.typing import NDArray

from faar_ray.report.statistics.rank_answer import LAYERS, SHARED, Cell, RankAnswer
from faar_ray.tracking.plots.drawing import EMPTY, INK, MUTED, save
from faar_ray.tracking.plots.layer_map import DECODER, TITLE, readable_on

FEW, MIDDLE, MANY = "#2a6f97", "#f4f1ea", "#c2571a"
COLOURS = LinearSegmentedColormap.from_list("ranks", [FEW, MIDDLE, MANY])
ROW, COLUMN = 0.23, 0.86  # inches, of a cell
TOP, BELOW, LEFT, RIGHT = 0.92, 0.12, 1.12, 0.25  # inches
LEGEND = 4.6  # inches
Row = tuple[int, str]
"""(stage, layer)"""


def plot_rank_map(ranks: RankAnswer, out: Path) -> None:
    """Draw it (PNG): a row per stage and layer, a column for the shared adapters and one per task.

    A cell is the mean over the blocks of the stage and over seeds. Orange keeps more components than the mean of all
    adapters, blue fewer, grey cannot be told from it; white: no adapter. With one seed no cell is grey.
    """
    rows, tasks = rows_of(ranks), tasks_of(ranks)
    title = f"Components kept: {ranks.name}"
    width = max(LEFT + COLUMN * len(tasks) + RIGHT, LEFT + LEGEND, 0.25 + TITLE * len(title))
    height = TOP + ROW * len(rows) + BELOW
    figure = Figure(figsize=(width, height))  # positions in inches: cells have the same size in every report
    ax = figure.add_axes((LEFT / width, BELOW / height, COLUMN * len(tasks) / width, ROW * len(rows) / height))
    _draw(ax, ranks, rows, tasks)

    figure.text(0.1 / width, 1 - 0.2 / height, title, fontsize=10, color=INK, fontweight="bold", va="center")
    _legend(figure, ranks, width, height)
    save(figure, out)


def rows_of(ranks: RankAnswer) -> list[Row]:
    """Stages and their layers, from the input to the output."""
    found = {(stage, layer) for stage, layer, _ in ranks.cells}
    return sorted(found, key=lambda row: (row[0], LAYERS.index(row[1]) if row[1] in LAYERS else len(LAYERS), row[1]))


def tasks_of(ranks: RankAnswer) -> list[str]:
    """`shared` first."""
    return sorted(dict.fromkeys(task for *_, task in ranks.cells), key=lambda task: task != SHARED)


def shades(ranks: RankAnswer, rows: Sequence[Row], tasks: Sequence[str]) -> NDArray[np.float64]:
    """Colours of the cells, shape (rows, tasks, 4)."""
    values = [cell.value for cell in ranks.cells.values()]
    middle = ranks.overall.value
    norm = TwoSlopeNorm(middle, min(*values, middle - 1e-6), max(*values, middle + 1e-6))
    colours = np.ones((len(rows), len(tasks), 4))
    for i, (stage, layer) in enumerate(rows):
        for j, task in enumerate(tasks):
            cell: Cell = (stage, layer, task)
            if cell in ranks.cells:
                told_apart = not ranks.overall.dof or ranks.stands_out(cell)
                colours[i, j] = COLOURS(norm(ranks.cells[cell].value)) if told_apart else to_rgba(EMPTY)
    return colours


def _draw(ax: Axes, ranks: RankAnswer, rows: Sequence[Row], tasks: Sequence[str]) -> None:
    colours = shades(ranks, rows, tasks)
    ax.imshow(colours, aspect="auto", interpolation="nearest")
    for i, (stage, layer) in enumerate(rows):
        for j, task in enumerate(tasks):
            if (cell := (stage, layer, task)) in ranks.cells:
                faded = bool(ranks.overall.dof) and not ranks.stands_out(cell)
                colour = MUTED if faded else readable_on(colours[i, j])
                text = f"{ranks.cells[cell].value:.1f}"
                ax.text(j, i, text, fontsize=8, color=colour, ha="center", va="center_baseline")

    ax.set_xticks(range(len(tasks)), [task.replace("_", "\n") for task in tasks], fontsize=8, color=INK)
    ax.xaxis.tick_top()
    ax.set_yticks(range(len(rows)), [layer for _, layer in rows], fontsize=8, color=INK)
    ax.tick_params(length=0)
    ax.spines[:].set_visible(False)
    ax.set_xticks(np.arange(0.5, len(tasks) - 1), minor=True)
    ax.set_yticks(np.arange(0.5, len(rows) - 1), minor=True)
    ax.grid(which="minor", color="white", linewidth=1.2)
    ax.tick_params(which="minor", length=0)
    _stages(ax, [stage for stage, _ in rows])


def _stages(ax: Axes, stages: Sequence[int]) -> None:
    """Each stage's name beside its rows, and a wider gap between stages."""
    for stage in dict.fromkeys(stages):
        first, count = stages.index(stage), stages.count(stage)
        name = "decoder" if stage == DECODER else f"stage {stage}"
        middle = first + (count - 1) / 2
        beside = ax.get_yaxis_transform() + ScaledTranslation(-1, 0, ax.figure.dpi_scale_trans)
        ax.text(0, middle, name, transform=beside, fontsize=8, color=MUTED, va="center", ha="left")
        if first:
            ax.axhline(first - 0.5, color="white", linewidth=5)


def _legend(figure: Figure, ranks: RankAnswer, width: float, height: float) -> None:
    """What the colours say, in the line below the title."""
    mean = ranks.overall.value
    entries = [(MANY, f"more than the mean, {mean:.1f}"), (FEW, "fewer")]
    if ranks.overall.dof and math.isfinite(mean):
        entries.append((EMPTY, "not told from it"))
    x = 0.1
    for colour, text in entries:
        y = 1 - 0.44 / height
        figure.text(x / width, y, "\u25a0", fontsize=10, color=colour if colour != EMPTY else "#d9dce1", va="center")
        figure.text((x + 0.16) / width, y, text, fontsize=8, color=INK, va="center")
        x += 0.36 + 0.064 * len(text)
