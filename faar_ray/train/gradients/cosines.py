"""The cosine of the tasks' gradients on shared bases (Free Sinewich, figure 6).

Axes: T tasks.
"""

from __future__ import annotations

import torch

from faar_ray.adapters import SineWeights
from faar_ray.adapters.sinewich.sine_measure import mean_cosines
from faar_ray.train.step import to_device
from faar_ray.train.trial import Trial

IMAGES = 16
"""At most so many, the first of the validation split, the same on every worker."""


def gradient_cosines(trial: Trial) -> dict[SineWeights, list[float | None]]:
    """Per layer with a base of all tasks, each task's mean cosine with every other task's; nothing is changed.

    One forward pass and a backward pass per task, in evaluation mode. A task without a label in these images has no
    cosine, and is no other task's.
    """
    tasks = trial.config.data.tasks
    layers = [layer for layer in trial.sines if "shared" in layer.bases]
    if len(tasks) == 1 or not layers:
        return {}
    images = min(IMAGES, max(1, trial.config.optim.batch_size // trial.config.optim.accumulate))  # what fits a step
    batch = next(iter(trial.val_data.batches(batch_size=images, seed=0, epoch=0, train=False)))
    batch = {name: to_device(trial, values) for name, values in batch.items()}

    counts = torch.stack([trial.tasks[task].loss.counts(batch[task])[0] for task in tasks]).tolist()
    labelled = [task for task, count in zip(tasks, counts, strict=True) if count > 0]
    if not labelled:
        return {}

    was_training = trial.model.training
    trial.model.eval()
    predictions = trial.model(batch["image"])
    parameters = [p for layer in layers for p in layer.bases.parameters()]
    sizes = [sum(p.numel() for p in layer.bases.parameters()) for layer in layers]
    of_tasks: list[tuple[torch.Tensor, ...]] = []
    for task in labelled:
        loss = trial.tasks[task].loss(predictions[task], batch[task])
        gradients = torch.autograd.grad(loss, parameters, retain_graph=task != labelled[-1])
        of_tasks.append(torch.cat([g.flatten() for g in gradients]).double().split(sizes))

    trial.model.train(was_training)
    cosines: dict[SineWeights, list[float | None]] = {}
    for layer, *of_layer in zip(layers, *of_tasks, strict=True):
        known = dict(zip(labelled, mean_cosines(torch.stack(of_layer)), strict=True))
        cosines[layer] = [known.get(task) for task in tasks]
    return cosines
