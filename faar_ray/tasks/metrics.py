"""Validation metrics, all torchmetrics, so that they add up exactly over batches and workers.

A metric without evidence is NaN: of a split in which no pixel is labelled for the task; F1 and odsF also where no edge
is. Shares are percent, angles degrees, depth in the data's unit. Axes: B batch, N channels, H W space.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Literal

import torch
import torch.nn.functional as F
from torch import Tensor
from torchmetrics import MeanSquaredError, Metric, MetricCollection
from torchmetrics.classification import BinaryPrecisionRecallCurve, MulticlassJaccardIndex

from faar_ray.config.task_definitions import SLOW_METRICS
from faar_ray.tasks.edge_matching import EdgeOdsF
from faar_ray.tasks.losses import IGNORE
from faar_ray.tasks.table import Task

SALIENCY_THRESHOLDS = torch.linspace(0.2, 0.9, 15)


class MeanIoU(MulticlassJaccardIndex):
    """Mean intersection over union, percent, pixels pooled over images; 255 is ignored.

    A class in neither labels nor predictions does not count, or with `absent_are_zero` as 0.
    """

    def __init__(self, classes: int, *, absent_are_zero: bool = False) -> None:
        average: Literal["none", "macro"] = "none" if absent_are_zero else "macro"
        super().__init__(num_classes=classes, ignore_index=IGNORE, average=average, validate_args=False)

    def update(self, logits_BNHW: Tensor, labels_BHW: Tensor) -> None:
        """Add a batch."""
        super().update(logits_BNHW.argmax(1), labels_BHW)

    def compute(self) -> dict[str, Tensor]:  # type: ignore[override]
        """`miou`."""
        mean = 100 * super().compute().mean()
        return {"miou": mean.where(self.confmat.sum() > 0, math.nan)}


class SaliencyIoU(Metric):
    """Foreground Jaccard per image, averaged, then the maximum over 15 thresholds in 0.2..0.9, percent.

    Images without a labelled pixel do not count.
    """

    total: Tensor
    images: Tensor

    def __init__(self) -> None:
        super().__init__()
        self.add_state("total", torch.zeros(len(SALIENCY_THRESHOLDS), dtype=torch.float64), dist_reduce_fx="sum")
        self.add_state("images", torch.tensor(0), dist_reduce_fx="sum")

    def update(self, logits_B1HW: Tensor, target_B1HW: Tensor) -> None:
        """Add a batch; where prediction and target are both empty a labelled image counts as 1."""
        thresholds = SALIENCY_THRESHOLDS.to(logits_B1HW).view(-1, 1, 1)
        predicted = logits_B1HW.flatten(1).sigmoid()[None] > thresholds
        valid = (target_B1HW != IGNORE).flatten(1)[None]
        target = (target_B1HW.flatten(1) > 0.5)[None]
        both = (predicted & target & valid).sum(-1)
        either = ((predicted | target) & valid).sum(-1)
        labelled = valid.any(-1)
        jaccard = torch.where(either > 0, both / either.clamp_min(1), 1.0) * labelled
        self.total += jaccard.double().sum(1)
        self.images += labelled.sum()

    def compute(self) -> dict[str, Tensor]:
        """`miou`."""
        return {"miou": 100 * (self.total / self.images).max()}


class NormalsAngle(Metric):
    """Angle between predicted and true normals, degrees, pooled over valid pixels.

    `mean_angle` is what papers of this field print as "rmse"; `rmse_angle` is the true root mean square.
    """

    total: Tensor
    squares: Tensor
    pixels: Tensor

    def __init__(self) -> None:
        super().__init__()
        self.add_state("total", torch.tensor(0.0, dtype=torch.float64), dist_reduce_fx="sum")
        self.add_state("squares", torch.tensor(0.0, dtype=torch.float64), dist_reduce_fx="sum")
        self.add_state("pixels", torch.tensor(0), dist_reduce_fx="sum")

    def update(self, prediction_B3HW: Tensor, target_B3HW: Tensor) -> None:
        """Add a batch."""
        valid = target_B3HW.square().sum(1) > 0.25
        cosine = F.cosine_similarity(prediction_B3HW, target_B3HW, dim=1).clamp(-1, 1)
        angle = torch.rad2deg(cosine.acos())[valid].double()
        self.total += angle.sum()
        self.squares += angle.square().sum()
        self.pixels += valid.sum()

    def compute(self) -> dict[str, Tensor]:
        """`mean_angle`, `rmse_angle`."""
        return {"mean_angle": self.total / self.pixels, "rmse_angle": (self.squares / self.pixels).sqrt()}


class RMSE(MeanSquaredError):
    """Root mean squared error over pooled valid pixels, in the data's unit; NaN and `ignore` are ignored.

    Predictions below `floor` count as `floor`.
    """

    def __init__(self, ignore: float = math.nan, floor: float | None = None) -> None:
        super().__init__(squared=False)
        self.set_dtype(torch.float64)
        self.ignore, self.floor = ignore, floor

    def update(self, prediction_B1HW: Tensor, target_B1HW: Tensor) -> None:
        """Add a batch."""
        valid = (target_B1HW != self.ignore) & target_B1HW.isfinite()
        prediction = prediction_B1HW[valid].double()
        if self.floor is not None:
            prediction = prediction.clamp_min(self.floor)
        super().update(prediction, target_B1HW[valid].double())

    def compute(self) -> dict[str, Tensor]:  # type: ignore[override]
        """`rmse`."""
        return {"rmse": super().compute()}


class EdgeF1(BinaryPrecisionRecallCurve):
    """Largest pixel F1 over 99 thresholds of the whole set, without tolerance in space, percent."""

    def __init__(self) -> None:
        super().__init__(thresholds=99, ignore_index=IGNORE, validate_args=False)

    def update(self, logits_B1HW: Tensor, target_B1HW: Tensor) -> None:
        """Add a batch."""
        super().update(logits_B1HW.sigmoid(), target_B1HW.long())

    def compute(self) -> dict[str, Tensor]:  # type: ignore[override]
        """`f1`."""
        precision, recall, _ = super().compute()
        f1 = 2 * precision * recall / (precision + recall)
        best = 100 * f1.nan_to_num(0).max()  # NaN where nothing is predicted
        edges = self.confmat[0, 1].sum()  # true and false at the first threshold: all of them at any
        return {"f1": best.where(edges > 0, math.nan)}


def metric_for(task: Task, *, slow: bool = False) -> Metric | MetricCollection:
    """A fresh metric of a task; `compute()` gives name -> value.

    Args:
        task: of the metric.
        slow: whether `SLOW_METRICS` are computed too, besides one that is the task's own metric.
    """
    match task.type:
        case "segmentation":
            return MeanIoU(task.channels, absent_are_zero=task.absent_are_zero)
        case "binary":
            return SaliencyIoU()
        case "normals":
            return NormalsAngle()
        case "edge":
            if slow or task.metric in SLOW_METRICS:
                return MetricCollection([EdgeF1(), EdgeOdsF()], compute_groups=False)
            return EdgeF1()
        case "depth":
            return RMSE(ignore=IGNORE, floor=task.floor)
        case _:
            return RMSE()


def primary(metrics: Mapping[str, float], tasks: Mapping[str, Task], split: str = "val") -> dict[str, float]:
    """The metric of each task that delta_m uses, from flat names `<split>/<task>/<metric>`."""
    return {name: metrics[f"{split}/{name}/{task.metric}"] for name, task in tasks.items()}
