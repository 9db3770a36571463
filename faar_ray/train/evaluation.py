"""Evaluation at full current rank, on whole splits, at the data's own size."""

from __future__ import annotations

from collections.abc import Mapping

import torch

from faar_ray.adapters import cached_kernels
from faar_ray.data import SplitData
from faar_ray.tasks import delta_m, metric_for, primary
from faar_ray.train.trial import Trial

EVALUATION_BATCH = 50


@torch.no_grad()
def evaluate(
    trial: Trial,
    dataset: SplitData,
    *,
    split: str,
    references: Mapping[str, float] | None = None,
) -> dict[str, float]:
    """`<split>/<task>/<metric>` of every task, and delta_m (`test/delta_m` on test) where references are known.

    Each worker evaluates its part of the images; torchmetrics adds up the workers' counts before it divides.
    """
    model, runtime = trial.model, trial.runtime
    metrics = {name: metric_for(task).to(runtime.metrics_device) for name, task in trial.tasks.items()}

    was_training = model.training
    model.eval()
    share = {"worker": runtime.rank, "workers": runtime.world_size}
    with cached_kernels(trial.sines):
        for batch in dataset.batches(batch_size=EVALUATION_BATCH, seed=0, epoch=0, train=False, **share):
            if not len(batch["image"]):
                continue
            predictions = model(batch["image"].to(runtime.device, trial.dtype))
            for task, metric in metrics.items():
                metric.update(
                    predictions[task].to(runtime.metrics_device, trial.dtype), batch[task].to(runtime.metrics_device)
                )
    model.train(was_training)

    values = {f"{split}/{task}/{name}": float(v) for task, m in metrics.items() for name, v in m.compute().items()}
    if references:
        values["delta_m" if split == "val" else f"{split}/delta_m"] = delta_m(
            primary(values, trial.tasks, split), references, trial.tasks
        )
    return values
