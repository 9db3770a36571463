"""Losses, metrics and delta_m against plain references."""

from __future__ import annotations

import math
from dataclasses import replace

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from torch import Tensor

from faar_ray.config.data_section import DataConfig
from faar_ray.config.registries import DATASETS
from faar_ray.config.task_definitions import TYPES, TaskDefinition
from faar_ray.data.scenes.object_table import CLASSES, PARTS
from faar_ray.tasks import Task, delta_m, metric_for, tasks_of

TASKS = tasks_of(DataConfig(tasks=tuple(TYPES)))
SEED_PASCAL = {"semseg": 67.21, "human_parts": 61.93, "saliency": 62.35, "normals": 17.97}


@pytest.mark.parametrize(
    ("row", "published"),
    [((72.02, 61.25, 66.11, 16.35), 5.28), ((67.90, 59.84, 65.40, 16.60), 2.55), ((70.82, 60.45, 65.88, 16.48), 4.24)],
)
def test_delta_m_recomputes_the_published_tables(row: tuple[float, ...], published: float) -> None:
    """FAAR, table 1 (PASCAL-Context): FAAR, MTLoRA and TADFormer."""
    assert delta_m(dict(zip(SEED_PASCAL, row, strict=True)), SEED_PASCAL, TASKS) == pytest.approx(published, abs=0.01)


def test_delta_m_leaves_out_a_task_without_evidence_for_both() -> None:
    values, references = {"semseg": 22.0, "normals": math.nan}, {"semseg": 20.0, "normals": math.nan}
    assert delta_m(values, references, TASKS) == pytest.approx(10)
    assert math.isnan(delta_m({"normals": math.nan}, references, TASKS))


@pytest.mark.parametrize(("value", "reference"), [(math.nan, 20.0), (20.0, math.nan), (20.0, 0.0), (0.0, 0.0)])
def test_delta_m_with_a_gain_that_is_not_defined_is_no_number(value: float, reference: float) -> None:
    assert math.isnan(delta_m({"semseg": 22.0, "depth": value}, {"semseg": 20.0, "depth": reference}, TASKS))


OF_TYPES = {task.type: replace(task, channels=min(task.channels, 4)) for task in TASKS.values()}
HEIGHT = DataConfig(tasks=("height",), definitions={"height": TaskDefinition(type="regression")})
OF_TYPES |= {task.type: task for task in tasks_of(HEIGHT).values()}


def labels(task: Task, images: int, *, labelled: bool) -> Tensor:
    """Random labels of 8 x 8 images, or none."""
    generator = torch.Generator().manual_seed(3)
    if task.type == "segmentation":
        return torch.randint(0, 4, (images, 8, 8), generator=generator) if labelled else torch.full((images, 8, 8), 255)
    if task.type == "normals":
        return F.normalize(torch.randn(images, 3, 8, 8, generator=generator), dim=1) * labelled
    found = 1 + torch.rand(images, 1, 8, 8, generator=generator)
    if task.type in ("binary", "edge"):
        found = (found < 1.3).float()
    return found if labelled else torch.full_like(found, math.nan if task.type == "regression" else 255.0)


def output(task: Task, images: int) -> Tensor:
    return torch.randn(images, task.channels, 8, 8, generator=torch.Generator().manual_seed(4))


@pytest.mark.parametrize("task", OF_TYPES.values(), ids=OF_TYPES)
def test_a_task_without_a_valid_pixel_contributes_zero(task: Task) -> None:
    prediction = output(task, 2).requires_grad_()
    loss = task.loss(prediction, labels(task, 2, labelled=False))
    loss.backward()
    assert loss.item() == 0
    assert prediction.grad is not None and prediction.grad.eq(0).all()


@pytest.mark.parametrize("task", OF_TYPES.values(), ids=OF_TYPES)
def test_a_metric_without_a_labelled_pixel_is_no_number(task: Task) -> None:
    metric = metric_for(task, slow=True)
    metric.update(output(task, 2), labels(task, 2, labelled=False))
    values = metric.compute()
    assert task.metric in values
    assert all(math.isnan(value) for value in values.values())


@pytest.mark.parametrize("task", OF_TYPES.values(), ids=OF_TYPES)
def test_images_without_labels_change_no_metric(task: Task) -> None:
    alone, mixed = metric_for(task, slow=True), metric_for(task, slow=True)
    prediction, target = output(task, 3), labels(task, 3, labelled=True)
    alone.update(prediction, target)
    without = labels(task, 2, labelled=False)
    mixed.update(torch.cat([output(task, 2), prediction]), torch.cat([without, target]))
    mixed.update(output(task, 2), without)
    assert {k: v.item() for k, v in mixed.compute().items()} == {k: v.item() for k, v in alone.compute().items()}


def test_edges_of_a_split_that_shows_none_have_no_f() -> None:
    metric = metric_for(TASKS["edge"], slow=True)
    metric.update(output(TASKS["edge"], 2), torch.zeros(2, 1, 8, 8))
    assert all(math.isnan(metric.compute()[name]) for name in ("f1", "ods_f"))


def test_a_depth_that_is_nan_is_ignored_like_255() -> None:
    task, prediction = TASKS["depth"], torch.full((1, 1, 2, 2), 3.0, requires_grad=True)
    target = torch.tensor([[[[2.0, math.nan], [4.0, 255.0]]]])
    loss = task.loss(prediction, target)
    loss.backward()
    assert loss.item() == 1.0
    assert prediction.grad is not None and prediction.grad.flatten().tolist() == [0.5, 0, -0.5, 0]


def test_255_is_a_value_of_a_regression() -> None:
    metric = metric_for(OF_TYPES["regression"])
    metric.update(torch.full((1, 1, 1, 2), 250.0), torch.tensor([[[[255.0, math.nan]]]]))
    assert metric.compute()["rmse"].item() == 5.0


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


@pytest.mark.parametrize(("absent", "over"), [("skip", 4), ("zero", 6)])
def test_classes_in_neither_labels_nor_predictions_are_left_out_or_count_as_zero(absent: str, over: int) -> None:
    """Against plain counts: of six classes 4 is in labels alone, 2 and 5 in neither (5 only where 255 hides it)."""
    keys = {"tasks": ["semseg"], "absent_classes": absent}
    task = replace(tasks_of(DataConfig.model_validate(keys))["semseg"], channels=6)
    random = np.random.default_rng(0)
    predicted, labels = random.choice([0, 1, 3], (4, 8, 8)), random.choice([0, 1, 3, 4], (4, 8, 8))
    predicted[:, 0], labels[:, 0] = 5, 255

    metric = metric_for(task)
    for part in (slice(0, 3), slice(3, 4)):
        logits = torch.nn.functional.one_hot(torch.from_numpy(predicted[part]), 6).movedim(-1, 1).float()
        metric.update(logits, torch.from_numpy(labels[part]))

    valid, total = labels != 255, 0.0
    for one in range(6):
        union = ((predicted == one) | (labels == one)) & valid
        total += ((predicted == one) & (labels == one) & valid).sum() / max(union.sum(), 1)
    assert metric.compute()["miou"].item() == pytest.approx(100 * total / over, rel=1e-5)


def test_absent_classes_that_count_as_zero_leave_a_split_without_labels_without_a_number() -> None:
    task = tasks_of(DataConfig(tasks=("semseg",), absent_classes="zero"))["semseg"]
    metric = metric_for(task)
    metric.update(output(task, 2), labels(task, 2, labelled=False))
    assert math.isnan(metric.compute()["miou"])


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


@pytest.mark.parametrize("floor", [None, 1e-9])
def test_depths_below_the_floor_count_as_the_floor(floor: float | None) -> None:
    keys = {"tasks": ["depth"], "depth_floor": floor}
    metric = metric_for(tasks_of(DataConfig.model_validate(keys))["depth"])
    predicted, true = np.array([-2.0, 0.5, -1.0, 3.0]), np.array([1.0, 2.0, 255.0, 4.0])
    metric.update(*(torch.from_numpy(values).float().view(1, 1, 2, 2) for values in (predicted, true)))
    judged = predicted if floor is None else np.where(predicted <= 0, floor, predicted)
    wanted = np.sqrt(np.mean(np.square(judged - true)[true != 255]))
    assert metric.compute()["rmse"].item() == pytest.approx(wanted, rel=1e-6)


def test_a_perfect_edge_map_has_f1_of_100() -> None:
    target = (torch.rand(2, 1, 8, 8) < 0.3).float()
    metric = metric_for(TASKS["edge"])
    metric.update(20 * target - 10, target)
    assert metric.compute()["f1"].item() == pytest.approx(100, rel=1e-4)


def test_scenes_have_an_output_for_each_of_their_classes_and_parts() -> None:
    channels = DATASETS["scenes"].channels
    assert (channels["semseg"], channels["human_parts"]) == (len(CLASSES), len(PARTS))
