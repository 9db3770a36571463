"""odsF of edges against plain references."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch
from numpy.typing import NDArray
from scipy.ndimage import gaussian_filter
from scipy.optimize import linear_sum_assignment
from skimage.morphology import thin
from torch import Tensor

from faar_ray.config.data_section import DataConfig
from faar_ray.config.task_definitions import TaskDefinition
from faar_ray.config.trial import TrialConfig
from faar_ray.objectives.metrics import goal_of, metric_names
from faar_ray.tasks import metric_for, tasks_of
from faar_ray.tasks.edge_matching import THRESHOLDS, TOLERANCE, EdgeOdsF, matches

Map = NDArray[np.float64]
SOME = THRESHOLDS[10::11]
SIDE = 192
"""Its tolerance is 2.04 pixels."""


@pytest.fixture(autouse=True)
def fewer_thresholds(monkeypatch: pytest.MonkeyPatch) -> None:
    """Nine of them, so that the tests are quick."""
    monkeypatch.setattr("faar_ray.tasks.edge_matching.THRESHOLDS", SOME)


def drawn_maps(images: int, height: int = 100, width: int = 104) -> tuple[Tensor, Tensor]:
    """Logits and labels (B, 1, H, W) of curves, sparse enough for a dense assignment; a tolerance of 1.08 pixels."""
    random = np.random.default_rng(5)
    logits, labels = [], []
    for _ in range(images):
        level = gaussian_filter(random.standard_normal((height, width)), 12)
        edge = np.diff((level > 0).astype(int), axis=0, prepend=0) != 0
        blurred = gaussian_filter(np.roll(edge, 1, 1).astype(float), 1.5)
        logits.append(9 * blurred / blurred.max() - 4 + gaussian_filter(random.standard_normal((height, width)), 1))
        label = edge.astype(float)
        label[:10, :30] = 255
        labels.append(label)
    return torch.tensor(np.array(logits))[:, None], torch.tensor(np.array(labels))[:, None]


def plain_counts(probability: Map, label: Map, threshold: float) -> tuple[int, int, int]:
    """Matched, predicted, true pixels; all distances, and an assignment of all pairs."""
    valid = label != 255
    skeleton = thin(probability >= threshold)  # type: ignore[no-untyped-call]
    predicted, true = np.argwhere(skeleton & valid), np.argwhere((label == 1) & valid)
    distance = np.sqrt(((predicted[:, None] - true[None]) ** 2).sum(-1))
    near = distance <= TOLERANCE * math.hypot(*label.shape)
    rows, columns = linear_sum_assignment(near, maximize=True)
    return int(near[rows, columns].sum()), len(predicted), len(true)


def plain_ods_f(logits: Tensor, labels: Tensor) -> float:
    pairs = list(zip(torch.sigmoid(logits).numpy()[:, 0], labels.numpy()[:, 0], strict=True))
    best = 0.0
    for threshold in SOME:
        matched, predicted, true = np.sum([plain_counts(p, label, threshold) for p, label in pairs], axis=0)
        precision, recall = matched / max(predicted, 1), matched / true
        best = max(best, 200 * precision * recall / max(precision + recall, 1e-9))
    return best


def found(logits: Tensor, labels: Tensor) -> float:
    metric = EdgeOdsF()
    metric.update(logits, labels)
    return metric.compute()["ods_f"].item()


def test_ods_f_equals_a_plain_reference() -> None:
    logits, labels = drawn_maps(2)
    value = found(logits, labels)
    assert 30 < value < 95
    assert value == pytest.approx(plain_ods_f(logits, labels), rel=1e-12)


@pytest.mark.parametrize("seed", range(5))
def test_as_many_pixels_are_matched_as_by_the_best_assignment(seed: int) -> None:
    random = np.random.default_rng(seed)
    predicted, true = random.random((2, 110, 110)) < 0.01  # a tolerance of 1.17 pixels
    predicted[40:60, 40:60], true[40:60, 40:60] = random.random((2, 20, 20)) < 0.4
    a, b = np.argwhere(predicted), np.argwhere(true)
    near = ((a[:, None] - b[None]) ** 2).sum(-1) <= (TOLERANCE * math.hypot(110, 110)) ** 2
    rows, columns = linear_sum_assignment(near, maximize=True)
    assert matches(predicted, true) == near[rows, columns].sum() > (predicted & true).sum()


def line(column: int, width: int = 1) -> Tensor:
    edge = torch.zeros(1, 1, SIDE, SIDE)
    edge[..., 10:-10, column : column + width] = 1
    return edge


@pytest.mark.parametrize(("shift", "expected"), [(0, 100), (1, 100), (2, 100), (3, 0)])
def test_an_edge_may_be_as_far_off_as_the_tolerance_and_no_farther(shift: int, expected: float) -> None:
    assert found(20 * line(50 + shift) - 10, line(50)) == pytest.approx(expected)


def test_a_distance_that_equals_the_tolerance_is_within() -> None:
    predicted, true = np.zeros((2, 240, 320), dtype=bool)  # 0.0075 of 400 pixels is 3
    predicted[100, 100] = predicted[200, 200] = True
    true[100, 103] = true[204, 200] = True
    assert matches(predicted, true) == 1


def test_a_thick_prediction_counts_as_its_middle_line() -> None:
    thick = found(20 * line(49, 3) - 10, line(50))
    assert thick > 99  # a pixel at either end is lost
    assert found(20 * (line(49, 3) + line(120, 3)) - 10, line(50)) == pytest.approx(200 / 3, abs=1)


def test_two_predicted_lines_do_not_share_one_true_edge() -> None:
    both = (line(49) + line(51)).clamp(max=1)
    assert found(20 * both - 10, line(50)) == pytest.approx(200 / 3)


def test_it_adds_up_exactly_over_batches_and_workers() -> None:
    logits, labels = drawn_maps(3)
    whole = found(logits, labels)
    parts = [EdgeOdsF() for _ in range(2)]
    parts[0].update(logits[:1], labels[:1])
    parts[0].update(logits[1:2], labels[1:2])
    parts[1].update(logits[2:], labels[2:])
    parts[0].merge_state(parts[1])
    assert parts[0].compute()["ods_f"].item() == whole


def test_without_a_true_edge_there_is_no_number_and_ignored_pixels_do_not_count() -> None:
    assert math.isnan(found(torch.zeros(1, 1, 8, 8), torch.zeros(1, 1, 8, 8)))
    ignored = line(50)
    ignored[..., 100:] = 255
    assert found(20 * (line(50) + line(150)) - 10, ignored) == pytest.approx(100)
    unlabelled = torch.cat([ignored, torch.full_like(ignored, 255)])
    assert found(20 * line(150).repeat(2, 1, 1, 1) + 20 * line(50) - 10, unlabelled) == pytest.approx(100)


def test_it_is_computed_where_it_is_asked_for() -> None:
    data = {"tasks": ["semseg", "edge"]}
    plain = tasks_of(DataConfig.model_validate(data))["edge"]
    asked = TrialConfig.resolve({"data": {**data, "definitions": {"edge": {"type": "edge", "metric": "ods_f"}}}})
    own = tasks_of(asked.data)["edge"]
    assert (own.metric, own.metric_unit, own.higher_is_better) == ("ods_f", "%", True)
    assert goal_of("val/edge/ods_f") == "maximize"
    assert "val/edge/ods_f" in metric_names(asked)
    assert "val/edge/ods_f" not in metric_names(TrialConfig.resolve({"data": data}))

    logits, labels = drawn_maps(1)
    for task, slow, names in ((plain, False, {"f1"}), (plain, True, {"f1", "ods_f"}), (own, False, {"f1", "ods_f"})):
        metric = metric_for(task, slow=slow)
        metric.update(logits, labels)
        assert set(metric.compute()) == names
    assert TaskDefinition(type="edge").val_metrics == ("f1",)
