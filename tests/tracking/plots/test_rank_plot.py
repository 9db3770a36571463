from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import numpy as np
import pytest
from matplotlib import image

from faar_ray.records import RankRecord
from faar_ray.tracking.files.rank_trace import read_rank_trace, write_rank_trace
from faar_ray.tracking.plots.layer_map import cell_means
from faar_ray.tracking.plots.rank_plot import plot_rank_trace


def draw(folder: Path, records: Sequence[RankRecord], name: str = "p.png", title: str = "ranks") -> np.ndarray:
    write_rank_trace(folder / "t.parquet", "t", records)
    plot_rank_trace(read_rank_trace(folder / "t.parquet"), folder / name, title)
    pixels: np.ndarray = image.imread(folder / name)
    return pixels


def record(epoch: int, rank: int, task: str = "shared", block: int = 0) -> RankRecord:
    return RankRecord(epoch, 0, block, "qkv", task, rank, rank, "adapter", 1.0, 1.0, (1.0,) * rank, 0, 9)


def test_rows_are_layers_and_columns_epochs() -> None:
    rows = [
        {"stage": 0, "block": 0, "layer": "qkv", "epoch": 3, "rank": 8},
        {"stage": 1, "block": 0, "layer": "fc1", "epoch": 4, "rank": 5},
    ]

    ranks = cell_means(rows, "rank", [(0, 0, "qkv"), (1, 0, "fc1")], [3, 4])

    assert ranks[0, 0] == 8
    assert ranks[1, 1] == 5
    assert np.isnan([ranks[0, 1], ranks[1, 0]]).all()


def test_other_ranks_make_another_picture(tmp_path: Path) -> None:
    one = draw(tmp_path, [record(0, 8), record(1, 8)])
    other = draw(tmp_path, [record(0, 8), record(1, 2)])

    assert one.shape == other.shape
    assert (one != other).any()


def test_a_task_adds_a_panel_and_a_layer_adds_a_row(tmp_path: Path) -> None:
    plain = draw(tmp_path, [record(e, 8) for e in range(6)])
    task = draw(tmp_path, [record(e, 8, t) for e in range(6) for t in ("shared", "depth")])
    deeper = draw(tmp_path, [record(e, 8, block=b) for e in range(6) for b in range(4)])

    assert task.shape[1] > plain.shape[1]
    assert deeper.shape[0] > plain.shape[0]


@pytest.mark.parametrize("epochs", [1, 2, 60])
def test_nothing_touches_the_edge_however_long_title_and_training(tmp_path: Path, epochs: int) -> None:
    title = "a title that is longer than the panels are wide: rho_shared 0.953, init_rank 16"

    pixels = draw(tmp_path, [record(e, 8) for e in range(epochs)], title=title)

    edge = np.concatenate([pixels[0, :, :3], pixels[-1, :, :3], pixels[:, 0, :3], pixels[:, -1, :3]])
    assert (edge == 1).all()
