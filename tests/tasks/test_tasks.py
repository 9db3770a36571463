"""Losses, metrics and delta_m against plain references."""

from __future__ import annotations

import math

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor

from faar_ray.config.registries import DATASETS
from faar_ray.data.scenes.object_table import CLASSES, PARTS
from faar_ray.errors import ConfigError
from faar_ray.tasks import TASKS, delta_m, metric_for, output_channels

SEED_PASCAL = {"semseg": 67.21, "human_parts": 61.93, "saliency": 62.35, "normals": 17.97}


@pytest.mark.parametrize(
    ("row", "published"),
    [((72.02, 61.25, 66.11, 16.35), 5.28), ((67.90, 59.84, 65.40, 16.60), 2.55), ((70.82, 60.45, 65.88, 16.48), 4.24)],
)
def test_delta_m_recomputes_the_published_tables(row: tuple[float, ...], published: float) -> None:
    """FAAR, table 1 (PASCAL-Context): FAAR, MTLoRA and TADFormer."""
    assert delta_m(dict(zip(SEED_PASCAL, row, strict=True)), SEED_PASCAL) == pytest.approx(published, abs=0.01)


def test_delta_m_leaves_out_a_task_without_evidence_for_both() -> None:
    values, references = {"semseg": 22.0, "normals": math.nan}, {"semseg": 20.0, "normals": math.nan}
    assert delta_m(values, references) == pytest.approx(10)
    assert math.isnan(delta_m({"normals": math.nan}, references))


@pytest.mark.parametrize(("value", "reference"), [(math.nan, 20.0), (20.0, math.nan), (20.0, 0.0), (0.0, 0.0)])
def test_delta_m_with_a_gain_that_is_not_defined_is_no_number(value: float, reference: float) -> None:
    assert math.isnan(delta_m({"semseg": 22.0, "depth": value}, {"semseg": 20.0, "depth": reference}))


CHANNELS = {"normals": 3, "semseg": 4, "human_parts": 4}


def labels(task: str, images: int, *, labelled: bool) -> Tensor:
    """Random labels of 8 x 8 images, or none."""
    generator = torch.Generator().manual_seed(3)
    if task in ("semseg", "human_parts"):
        return torch.randint(0, 4, (images, 8, 8), generator=generator) if labelled else torch.full((images, 8, 8), 255)
    if task == "normals":
        return F.normalize(torch.randn(images, 3, 8, 8, generator=generator), dim=1) * labelled
    if task == "depth":
        found = 1 + torch.rand(images, 1, 8, 8, generator=generator)
    else:
        found = (torch.rand(images, 1, 8, 8, generator=generator) < 0.3).float()
    return found if labelled else torch.full((images, 1, 8, 8), 255.0)


def output(task: str, images: int) -> Tensor:
    return torch.randn(images, CHANNELS.get(task, 1), 8, 8, generator=torch.Generator().manual_seed(4))


@pytest.mark.parametrize("task", TASKS)
def test_a_task_without_a_valid_pixel_contributes_zero(task: str) -> None:
    prediction = output(task, 2).requires_grad_()
    loss = TASKS[task].loss(prediction, labels(task, 2, labelled=False))
    loss.backward()
    assert loss.item() == 0
    assert prediction.grad is not None and prediction.grad.eq(0).all()


@pytest.mark.parametrize("task", TASKS)
def test_a_metric_without_a_labelled_pixel_is_no_number(task: str) -> None:
    metric = metric_for(task, CHANNELS.get(task, 1))
    metric.update(output(task, 2), labels(task, 2, labelled=False))
    values = metric.compute()
    assert TASKS[task].metric in values
    assert all(math.isnan(value) for value in values.values())


@pytest.mark.parametrize("task", TASKS)
def test_images_without_labels_change_no_metric(task: str) -> None:
    alone, mixed = (metric_for(task, CHANNELS.get(task, 1)) for _ in range(2))
    prediction, target = output(task, 3), labels(task, 3, labelled=True)
    alone.update(prediction, target)
    without = labels(task, 2, labelled=False)
    mixed.update(torch.cat([output(task, 2), prediction]), torch.cat([without, target]))
    mixed.update(output(task, 2), without)
    assert {k: v.item() for k, v in mixed.compute().items()} == {k: v.item() for k, v in alone.compute().items()}


def test_edges_of_a_split_that_shows_none_have_no_f1() -> None:
    metric = metric_for("edge", 1)
    metric.update(output("edge", 2), torch.zeros(2, 1, 8, 8))
    assert math.isnan(metric.compute()["f1"])


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
    metric = metric_for("semseg", 3)
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
    metric = metric_for("saliency", 1)
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
    metric = metric_for("normals", 3)
    metric.update(prediction, target)
    result = metric.compute()
    assert result["mean_angle"].item() == pytest.approx(20, rel=1e-4)
    assert result["rmse_angle"].item() == pytest.approx(math.sqrt((100 + 900) / 2), rel=1e-4)


def test_depth_rmse_pools_valid_pixels() -> None:
    metric = metric_for("depth", 1)
    metric.update(torch.tensor([[[[1.0, 9.0]]]]), torch.tensor([[[[4.0, 255.0]]]]))
    metric.update(torch.tensor([[[[1.0, 1.0]]]]), torch.tensor([[[[1.0, 2.0]]]]))
    assert metric.compute()["rmse"].item() == pytest.approx(math.sqrt(10 / 3), rel=1e-5)


def test_a_perfect_edge_map_has_f1_of_100() -> None:
    target = (torch.rand(2, 1, 8, 8) < 0.3).float()
    metric = metric_for("edge", 1)
    metric.update(20 * target - 10, target)
    assert metric.compute()["f1"].item() == pytest.approx(100, rel=1e-4)


def test_tasks_that_a_data_set_lacks_are_refused_by_name() -> None:
    with pytest.raises(ConfigError, match=r"pascal_context has labels for .*got depth"):
        output_channels("pascal_context", ("semseg", "depth"))


def test_scenes_have_an_output_for_each_of_their_classes_and_parts() -> None:
    channels = DATASETS["scenes"].channels
    assert (channels["semseg"], channels["human_parts"]) == (len(CLASSES), len(PARTS))
