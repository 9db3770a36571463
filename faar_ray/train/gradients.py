"""How far the tasks pull shared bases in different directions: the cosine of their gradients (Free Sinewich, figure 6).

Axes: T tasks.
"""

from __future__ import annotations

import torch

from faar_ray.adapters import SineWeights
from faar_ray.adapters.sine_measure import mean_cosines
from faar_ray.data import batches
from faar_ray.tasks import TASKS
from faar_ray.train.trial import Trial

IMAGES = 16
"""The first of the validation split: every worker finds the same."""


def gradient_cosines(trial: Trial) -> dict[SineWeights, list[float | None]]:
    """Per layer with a base of all tasks, each task's mean cosine with every other task's; nothing is changed.

    One forward pass and a backward pass per task, in evaluation mode.
    """
    tasks = trial.config.data.tasks
    layers = [layer for layer in trial.sines if "shared" in layer.bases]
    if len(tasks) == 1 or not layers:
        return {}
    batch = next(iter(batches(trial.val_data, batch_size=IMAGES, seed=0, epoch=0, train=False)))
    was_training = trial.model.training
    trial.model.eval()
    predictions = trial.model(batch["image"].to(trial.runtime.device, trial.dtype))
    of_layers = [list(layer.bases.parameters()) for layer in layers]
    flat = [p for parameters in of_layers for p in parameters]
    found: list[list[torch.Tensor]] = []
    for task in tasks:
        target = batch[task].to(trial.runtime.device, trial.dtype if batch[task].is_floating_point() else None)
        loss = TASKS[task].loss(predictions[task], target)
        gradients = torch.autograd.grad(loss, flat, retain_graph=task != tasks[-1])
        found.append([g.flatten() for g in gradients])
    trial.model.train(was_training)
    cosines, start = {}, 0
    for layer, parameters in zip(layers, of_layers, strict=True):
        stop = start + len(parameters)
        vectors_TN = torch.stack([torch.cat(of_task[start:stop]) for of_task in found])
        cosines[layer] = mean_cosines(vectors_TN.double())
        start = stop
    return cosines
