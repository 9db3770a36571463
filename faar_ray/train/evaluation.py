"""Evaluation at full current rank, on whole splits."""

from __future__ import annotations

from collections.abc import Mapping

import torch
import torch.nn.functional as F
from torch import Tensor
from torchmetrics import Metric, MetricCollection

from faar_ray.adapters import cached_kernels
from faar_ray.data import SplitData
from faar_ray.data.loader import LABEL_SIZE
from faar_ray.tasks import delta_m, metric_for, primary
from faar_ray.train.step import autocast
from faar_ray.train.trial import Trial

LARGEST_BATCH = 50
PIXELS = 16 * 448 * 448
"""Of a batch, at most."""


@torch.no_grad()
def evaluate(
    trial: Trial,
    dataset: SplitData,
    *,
    split: str,
    references: Mapping[str, float] | None = None,
) -> dict[str, float]:
    """`<split>/<task>/<metric>` of every task, and delta_m (`test/delta_m` on test) where references are known.

    Forward passes have the precision of training. Each worker evaluates its part of the images; torchmetrics adds up
    the workers' counts before it divides.
    """
    model, runtime = trial.model, trial.runtime
    metrics = {
        name: metric_for(task, slow=split != "val").to(runtime.metrics_device) for name, task in trial.tasks.items()
    }

    was_training = model.training
    model.eval()
    order = dataset.batches(
        batch_size=batch_size(trial.config.data.size),
        seed=0,
        epoch=0,
        train=False,
        worker=runtime.rank,
        workers=runtime.world_size,
        original=trial.config.data.evaluation == "original",
        device=runtime.device,
    )
    with cached_kernels(trial.sines):
        for batch in order:
            if not len(batch["image"]):
                continue
            with autocast(trial):
                predictions = model(batch["image"].to(runtime.device, trial.dtype))
            for name, metric in metrics.items():
                prediction = predictions[name].to(runtime.metrics_device, trial.dtype)
                update(metric, prediction, batch[name].to(runtime.metrics_device), batch.get(LABEL_SIZE))
    model.train(was_training)

    values = {f"{split}/{task}/{name}": float(v) for task, m in metrics.items() for name, v in m.compute().items()}
    if references:
        values["delta_m" if split == "val" else f"{split}/delta_m"] = delta_m(
            primary(values, trial.tasks, split), references, trial.tasks
        )
    return values


def batch_size(size: tuple[int, int]) -> int:
    """Images that are evaluated at once, of a height and width."""
    return max(1, min(LARGEST_BATCH, PIXELS // (size[0] * size[1])))


def update(metric: Metric | MetricCollection, prediction_BNHW: Tensor, label: Tensor, size_B2: Tensor | None) -> None:
    """Add a batch to a metric; predictions are resized to labels that have sizes of their own."""
    if size_B2 is None:
        metric.update(prediction_BNHW, label)
        return
    for row, (height, width) in enumerate(size_B2.tolist()):
        resized = F.interpolate(prediction_BNHW[row : row + 1], size=(height, width), mode="bilinear")
        metric.update(resized, label[row : row + 1, ..., :height, :width])
