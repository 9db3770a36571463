from __future__ import annotations

from collections.abc import Sequence
from math import nan
from pathlib import Path

import numpy as np
import pytest
from matplotlib import image
from matplotlib.colors import to_rgb

from faar_ray.records import SineRecord
from faar_ray.tracking.files.sine_trace import read_sine_trace, write_sine_trace
from faar_ray.tracking.plots.drawing import WARM
from faar_ray.tracking.plots.sine_plot import plot_sine_trace

TASKS = ("semseg", "human_parts", "normals", "saliency", "depth", "edge")


def draw(folder: Path, records: Sequence[SineRecord], title: str = "sines") -> np.ndarray:
    write_sine_trace(folder / "t.parquet", "t", records)
    plot_sine_trace(read_sine_trace(folder / "t.parquet"), folder / "p.png", title)
    pixels: np.ndarray = image.imread(folder / "p.png")
    return pixels[..., :3]


def some(
    tasks: int = 3,
    epochs: int = 6,
    layers: int = 4,
    cosine: float | None = 0.5,
    gradient: float | None = 0.1,
    rank: float = 90.0,
) -> list[SineRecord]:
    return [
        SineRecord(e, s, 1, "fc1", t, 9.0 + s + k, 0.0, 0.05, 0.1, 0.45, 64, 0.5 * rank, rank + k, cosine, gradient)
        for e in range(epochs)
        for s in range(layers)
        for k, t in enumerate(TASKS[:tasks])
    ]


def share(pixels: np.ndarray, colour: str) -> float:
    return float((np.abs(pixels - to_rgb(colour)) < 0.01).all(axis=-1).mean())


def test_other_numbers_make_another_picture(tmp_path: Path) -> None:
    plain = draw(tmp_path, some())

    for other in (some(cosine=0.6), some(gradient=0.2), some(rank=70.0)):
        pixels = draw(tmp_path, other)
        assert pixels.shape == plain.shape
        assert (pixels != plain).any()


def test_a_layer_adds_a_row(tmp_path: Path) -> None:
    assert draw(tmp_path, some(layers=5)).shape[0] > draw(tmp_path, some()).shape[0]


def test_layers_whose_tasks_are_all_but_alike_stand_out(tmp_path: Path) -> None:
    message = share(draw(tmp_path, some(cosine=0.89)), WARM)  # the colour bar's end

    assert 0 < message < 0.01
    assert share(draw(tmp_path, some(cosine=0.91)), WARM) > 5 * message


def test_one_task_has_nothing_to_be_compared_with(tmp_path: Path) -> None:
    assert share(draw(tmp_path, some(tasks=1, cosine=None, gradient=None)), WARM) == 0


@pytest.mark.parametrize(
    "records",
    [
        some(epochs=1),
        some(tasks=1, cosine=None, gradient=None),
        some(tasks=6, epochs=60, gradient=None),
        some(epochs=1, layers=1, cosine=nan, gradient=nan, rank=nan),
        some(epochs=2, layers=1, cosine=-0.5, rank=0.0),
    ],
)
@pytest.mark.parametrize("title", ["sines", "a title that is longer than the panels are wide: " + 12 * "rho 0.953, "])
def test_nothing_touches_the_edge_whatever_was_measured(
    tmp_path: Path, records: Sequence[SineRecord], title: str
) -> None:
    pixels = draw(tmp_path, records, title)

    assert (np.concatenate([pixels[0], pixels[-1], pixels[:, 0], pixels[:, -1]]) == 1).all()
