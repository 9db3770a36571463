"""One optimizer step: forward, backward, unscale, observe, clip, step; in parts, over workers, mixed precision."""

from __future__ import annotations

import math
from collections.abc import Mapping
from contextlib import nullcontext

import torch
from torch import Tensor, nn
from torch.nn.utils import clip_grads_with_norm_, get_total_norm

from faar_ray.adapters import cached_kernels
from faar_ray.errors import FaarRayError
from faar_ray.train.trial import Trial

AUTOCAST = {"bf16": torch.bfloat16, "fp16": torch.float16}
Batch = Mapping[str, Tensor]


class NonFiniteLoss(FaarRayError):
    """Training diverged; trying again gives the same."""


class NonFiniteGradient(FaarRayError):
    """Backward overflowed although the losses are finite, and no step would change anything any more."""


def train_step(trial: Trial, batch: Batch, step: int) -> dict[str, Tensor]:
    """Train on this worker's part of a step's batch; returns L_t of every task over the whole step.

    L_t is NaN for a task without a labelled pixel in the step, whose share of the loss was 0.

    One prefix mask holds for the whole step, and scores are those of its whole gradient. A step whose gradients
    overflow under fp16's loss scale is skipped: only the scale moves, neither weights nor importance nor learning rate.

    Raises:
        NonFiniteLoss: naming step and task.
        NonFiniteGradient: naming step and parameter.
    """
    batch = {name: to_device(trial, values) for name, values in batch.items()}
    counts = counts_of(trial, batch)
    trial.optimizer.zero_grad(set_to_none=True)
    losses = trial.runtime.all_reduce_sum(accumulated(trial, batch, counts, trial.micro_batches(step)))
    losses_by_task = dict(zip(counts, losses, strict=True))
    for task, value in losses_by_task.items():
        if not value.isfinite():
            raise NonFiniteLoss(f"step {step}: the loss of {task} is {value.item()}")
    update(trial, step)
    return {task: value.where(counts[task][0] > 0, math.nan) for task, value in losses_by_task.items()}


def update(trial: Trial, step: int) -> None:
    """From the step's gradients to new parameters, in the order that AMP needs."""
    trial.scaler.unscale_(trial.optimizer)
    parameters = [p for group in trial.optimizer.param_groups for p in group["params"] if p.grad is not None]
    norm = get_total_norm([p.grad for p in parameters if p.grad is not None])
    if not norm.isfinite():  # the step's only wait for an accelerator beside the losses'
        skip(trial, step)
        return
    trial.policy.observe()
    clip_grads_with_norm_(parameters, trial.config.optim.clip, norm)
    trial.scaler.step(trial.optimizer)
    trial.scaler.update()
    trial.policy.after_step(trial.optimizer)
    trial.scheduler.step()


def skip(trial: Trial, step: int) -> None:
    """Lower the loss scale of fp16, the only mending of gradients that are not finite.

    Raises:
        NonFiniteGradient: there is no loss scale, or every gradient is finite and only their norm is not.
    """
    name, gradient = worst_gradient(trial.model)
    if trial.scaler.is_enabled() and not gradient.isfinite().all():
        trial.scaler.step(trial.optimizer)  # does nothing but to note that it was asked
        trial.scaler.update()
        trial.skipped_steps += 1
        return
    values = gradient[~gradient.isfinite()]
    what = f"is {values[0].item()}" if len(values) else f"is as large as {gradient.abs().max().item():.1e}"
    raise NonFiniteGradient(f"step {step}: the losses are finite, but the gradient of {name} {what}")


def worst_gradient(model: nn.Module) -> tuple[str, Tensor]:
    """The first parameter whose gradient is not finite, else the one with the largest entry; and its gradient."""
    gradients = {name: p.grad for name, p in model.named_parameters() if p.grad is not None}
    largest = {name: gradient.abs().max() for name, gradient in gradients.items() if gradient.numel()}
    name = next((name for name, value in largest.items() if not value.isfinite()), "")
    name = name or max(largest, key=lambda name: float(largest[name]))
    return name, gradients[name]


def counts_of(trial: Trial, batch: Batch) -> dict[str, Tensor]:
    """What each task's loss counts in the labels of the whole step, over all workers."""
    counts_T2 = torch.stack([task.loss.counts(batch[name]) for name, task in trial.tasks.items()])
    return dict(zip(trial.tasks, trial.runtime.all_reduce_sum(counts_T2), strict=True))


def accumulated(trial: Trial, batch: Batch, counts: Mapping[str, Tensor], parts: int) -> Tensor:
    """Backward through the batch in parts; this worker's share of every task's loss, (T,)."""
    shares: list[Tensor] = []
    with cached_kernels(trial.sines if parts > 1 else ()):
        for i, rows in enumerate(torch.arange(len(batch["image"])).tensor_split(parts)):
            last = i + 1 == parts
            with nullcontext() if last else trial.runtime.no_sync(trial.wrapped_model):
                part = batch if parts == 1 else {name: values[rows] for name, values in batch.items()}
                of_part = shares_of(trial, part, counts)
                loss = torch.stack([trial.tasks[task].weight * share for task, share in of_part.items()]).sum()
                loss = loss * trial.runtime.world_size  # workers' gradients are averaged
                if last and (term := trial.policy.loss_term()) is not None:
                    loss = loss + term
                trial.scaler.scale(loss).backward()
            shares.append(torch.stack(list(of_part.values())).detach())
    return torch.stack(shares).sum(0)


def shares_of(trial: Trial, batch: Batch, counts: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """This batch's share of every task's loss."""
    kind = AUTOCAST.get(trial.config.optim.precision)
    with torch.autocast(trial.runtime.device.type, dtype=kind, enabled=kind is not None):
        predictions = trial.forward(batch["image"])
    full = predictions if kind is None else {task: y.float() for task, y in predictions.items()}
    return {task: trial.tasks[task].loss.share(full[task], batch[task], counts[task]) for task in counts}


def to_device(trial: Trial, values: Tensor) -> Tensor:
    """On the trial's device, in its precision."""
    return values.to(trial.runtime.device, trial.dtype if values.is_floating_point() else None)
