"""Losses, metrics and delta_m against plain references."""

from __future__ import annotations

import math
from dataclasses import replace

import pytest
import torch

from faar_ray.config.data_section import DataConfig
from faar_ray.config.registries import DATASETS
from faar_ray.config.task_definitions import TYPES
from faar_ray.data.scenes.object_table import CLASSES, PARTS
from faar_ray.tasks import delta_m, metric_for, tasks_of

TASKS = tasks_of(DataConfig(tasks=tuple(TYPES)))
SEED_PASCAL = {"semseg": 67.21, "human_parts": 61.93, "saliency": 62.35, "normals": 17.97}


@pytest.mark.parametrize(
    ("row", "published"),
    [((72.02, 61.25, 66.11, 16.35), 5.28), ((67.90, 59.84, 65.40, 16.60), 2.55), ((70.82, 60.45, 65.88, 16.48), 4.24)],
)
def test_delta_m_recomputes_the_published_tables(row: tuple[float, ...], published: float) -> None:
    """FAAR, table 1 (PASCAL-Context): FAAR, MTLoRA and TADFormer."""
    assert delta_m(dict(zip(SEED_PASCAL, row, strict=True)), SEED_PASCAL, TASKS) == pytest.approx(published, abs=0.01)


@pytest.mark.parametrize("task", TASKS)
def test_a_task_without_a_valid_pixel_contributes_zero(task: str) -> None:
    channels = {"normals": 3, "semseg": 4, "human_parts": 4}.get(task, 1)
    prediction = torch.randn(2, channels, 8, 8, requires_grad=True)
    if task in ("semseg", "human_parts"):
        target = torch.full((2, 8, 8), 255)
    else:
        target = torch.zeros(2, 3, 8, 8) if task == "normals" else torch.full((2, 1, 8, 8), 255.0)
    loss = TASKS[task].loss(prediction, target)
    loss.backward()
    assert loss.item() == 0
    assert prediction.grad is not None and prediction.grad.eq(0).all()


def test_saliency_loss_balances_by_the_share_of_negatives() -> None:
    logits = torch.randn(2, 1, 4, 4)
    target = (torch.rand(2, 1, 4, 4) < 0.2).float()
    negatives = (target == 0).double().mean()
    p = logits.double().sigmoid()
    expected = -(negatives * target * p.log() + (1 - negatives) * (1 - target) * (1 - p).log()).mean()
    assert TASKS["saliency"].loss(logits, target).item() == pytest.approx(expected.item(), rel=1e-5)


def test_depth_loss_leaves_ignored_pixels_out() -> None:
    target = torch.tensor([[[[2.0, 255.0], [4.0, 255.0]]]])
    assert TASKS["depth"].loss(torch.full((1, 1, 2, 2), 3.0), target).item() == 1.0


def test_normals_loss_compares_directions() -> None:
    target = torch.nn.functional.normalize(torch.randn(1, 3, 4, 4), dim=1)
    assert TASKS["normals"].loss(7 * target, target).item() == pytest.approx(0, abs=1e-6)


def test_mean_iou_pools_pixels_over_batches() -> None:
    torch.manual_seed(0)
    logits, labels = torch.randn(6, 3, 8, 8), torch.randint(0, 3, (6, 8, 8))
    labels[:, 0] = 255
    metric = metric_for(replace(TASKS["semseg"], channels=3))
    for part in (slice(0, 4), slice(4, 6)):
        metric.update(logits[part], labels[part])
    valid, predicted = labels != 255, logits.argmax(1)
    ious = [
        ((predicted == c) & (labels == c) & valid).sum() / (((predicted == c) | (labels == c)) & valid).sum()
        for c in range(3)
    ]
    assert metric.compute()["miou"].item() == pytest.approx(100 * sum(ious).item() / 3, rel=1e-5)


def test_saliency_iou_is_the_best_threshold_of_the_mean_over_images() -> None:
    torch.manual_seed(0)
    logits, target = 2 * torch.randn(5, 1, 6, 6), (torch.rand(5, 1, 6, 6) < 0.3).float()
    target[0], logits[0] = 0, -20  # both empty counts as 1
    metric = metric_for(TASKS["saliency"])
    metric.update(logits[:2], target[:2])
    metric.update(logits[2:], target[2:])
    best = 0.0
    for threshold in [0.2 + 0.05 * k for k in range(15)]:
        values = []
        for p, t in zip(logits.sigmoid() > threshold, target > 0.5, strict=True):
            union = (p | t).sum().item()
            values.append((p & t).sum().item() / union if union else 1.0)
        best = max(best, sum(values) / 5)
    assert metric.compute()["miou"].item() == pytest.approx(100 * best, rel=1e-5)


def test_normals_metric_is_the_mean_angle_and_the_true_rmse_is_beside_it() -> None:
    target = torch.zeros(1, 3, 1, 3)
    target[0, 2, 0, :2] = 1  # the third pixel is ignored
    angles = torch.tensor([10.0, 30.0, 90.0]).deg2rad()
    prediction = torch.stack([angles.sin(), torch.zeros(3), angles.cos()])[None, :, None]
    metric = metric_for(TASKS["normals"])
    metric.update(prediction, target)
    result = metric.compute()
    assert result["mean_angle"].item() == pytest.approx(20, rel=1e-4)
    assert result["rmse_angle"].item() == pytest.approx(math.sqrt((100 + 900) / 2), rel=1e-4)


def test_depth_rmse_pools_valid_pixels() -> None:
    metric = metric_for(TASKS["depth"])
    metric.update(torch.tensor([[[[1.0, 9.0]]]]), torch.tensor([[[[4.0, 255.0]]]]))
    metric.update(torch.tensor([[[[1.0, 1.0]]]]), torch.tensor([[[[1.0, 2.0]]]]))
    assert metric.compute()["rmse"].item() == pytest.approx(math.sqrt(10 / 3), rel=1e-5)


def test_a_perfect_edge_map_has_f1_of_100() -> None:
    target = (torch.rand(2, 1, 8, 8) < 0.3).float()
    metric = metric_for(TASKS["edge"])
    metric.update(20 * target - 10, target)
    assert metric.compute()["f1"].item() == pytest.approx(100, rel=1e-4)


def test_scenes_have_an_output_for_each_of_their_classes_and_parts() -> None:
    channels = DATASETS["scenes"].channels
    assert (channels["semseg"], channels["human_parts"]) == (len(CLASSES), len(PARTS))
