"""Evaluation at full current rank, on whole splits, at the data's own size."""

from __future__ import annotations

from collections.abc import Mapping

import torch

from faar_ray.config import TrialConfig
from faar_ray.data import DenseDataset, batches
from faar_ray.models import MultiTaskModel
from faar_ray.tasks import delta_m, metric_for, output_channels, primary

EVALUATION_BATCH = 50


@torch.no_grad()
def evaluate(
    model: MultiTaskModel,
    dataset: DenseDataset,
    config: TrialConfig,
    *,
    split: str,
    references: Mapping[str, float] | None = None,
) -> dict[str, float]:
    """`<split>/<task>/<metric>` of every task, and delta_m (`test/delta_m` on test) where references are known."""
    tasks = config.data.tasks
    outputs = output_channels(config.data.name, tasks)
    device = next(model.parameters()).device
    metrics = {task: metric_for(task, outputs[task]).to(device) for task in tasks}
    was_training = model.training
    model.eval()
    for batch in batches(dataset, batch_size=EVALUATION_BATCH, seed=0, epoch=0, train=False):
        predictions = model(batch["image"].to(device))
        for task, metric in metrics.items():
            metric.update(predictions[task].float(), batch[task].to(device))
    model.train(was_training)
    values = {f"{split}/{task}/{name}": float(v) for task, m in metrics.items() for name, v in m.compute().items()}
    if references is not None:
        values["delta_m" if split == "val" else f"{split}/delta_m"] = delta_m(primary(values, tasks, split), references)
    return values
