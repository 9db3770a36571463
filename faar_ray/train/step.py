"""One optimizer step: forward, backward, unscale, observe, clip, step; in parts, over workers, mixed precision."""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping, Sequence
from contextlib import nullcontext

import torch
from torch import Tensor, nn
from torch.nn.utils import clip_grads_with_norm_, get_total_norm

from faar_ray.adapters import cached_kernels
from faar_ray.train.finite import check_losses, largest_entries, overflow, worst
from faar_ray.train.trial import Trial

AUTOCAST = {"bf16": torch.bfloat16, "fp16": torch.float16}
Batch = Mapping[str, Tensor]


def train_step(trial: Trial, batch: Batch, step: int) -> dict[str, Tensor]:
    """Train on this worker's part of a step's batch; returns L_t of every task over the whole step.

    L_t is NaN for a task without a labelled pixel in the step, whose share of the loss was 0.

    One prefix mask holds for the whole step, and scores are those of its whole gradient. A step whose gradients
    overflow under fp16's loss scale is skipped: only the scale moves, neither weights nor importance nor learning rate
    nor the running means of the losses.

    Raises:
        NonFiniteLoss: naming step and task; on an accelerator it may be an earlier step (see `LateReader`).
        NonFiniteGradient: naming step and parameter, likewise.
    """
    batch = {name: to_device(trial, values) for name, values in batch.items()}
    counts = counts_of(trial, batch)
    trial.optimizer.zero_grad(set_to_none=True)
    losses_T = trial.runtime.all_reduce_sum(accumulated(trial, batch, counts, trial.micro_batches(step)))
    labelled_T = torch.stack([of[0] > 0 for of in counts.values()])
    if update(trial, step, losses_T) and trial.loss_norm is not None:
        trial.loss_norm.observe(losses_T, labelled_T)
    return dict(zip(counts, losses_T.where(labelled_T, math.nan), strict=True))


def update(trial: Trial, step: int, losses_T: Tensor) -> bool:
    """From the step's gradients to new parameters, in the order that AMP needs; nothing else waits for a device.

    Gives whether the step counts; it does not where fp16 overflowed.
    """
    trial.scaler.unscale_(trial.optimizer)
    parameters = [p for group in trial.optimizer.param_groups for p in group["params"] if p.grad is not None]
    norm = get_total_norm([p.grad for p in parameters if p.grad is not None])

    if trial.late_reader is not None:
        trial.late_reader.note(step, losses_T, norm, parameters)
    else:
        *losses, total = torch.cat([losses_T, norm[None]]).tolist()
        check_losses(step, trial.config.data.tasks, losses)
        if not math.isfinite(total):
            skip(trial, step, parameters)
            return False

    if not trial.policy.observes_clipped:
        trial.policy.observe()
    clip_grads_with_norm_(parameters, trial.config.optim.clip, norm)
    if trial.policy.observes_clipped:
        trial.policy.observe()
    trial.scaler.step(trial.optimizer)
    trial.scaler.update()
    trial.policy.after_step(trial.optimizer)
    trial.scheduler.step()
    return True


def skip(trial: Trial, step: int, parameters: Sequence[nn.Parameter]) -> None:
    """Lower the loss scale of fp16, the only mending of gradients that are not finite.

    Raises:
        NonFiniteGradient: there is no loss scale, or every gradient is finite and only their norm is not.
    """
    name, largest = worst(trial.model, parameters, largest_entries(parameters))
    if not trial.scaler.is_enabled() or math.isfinite(largest):
        raise overflow(step, name, largest)
    trial.scaler.step(trial.optimizer)  # does nothing but to note that it was asked
    trial.scaler.update()
    trial.skipped_steps += 1


def counts_of(trial: Trial, batch: Batch) -> dict[str, Tensor]:
    """What each task's loss counts in the labels of the whole step, over all workers."""
    counts_T2 = torch.stack([task.loss.counts(batch[name]) for name, task in trial.tasks.items()])
    return dict(zip(trial.tasks, trial.runtime.all_reduce_sum(counts_T2), strict=True))


def accumulated(trial: Trial, batch: Batch, counts: Mapping[str, Tensor], parts: int) -> Tensor:
    """Backward through the batch in parts; this worker's share of every task's loss, (T,)."""
    shares: list[Tensor] = []
    with cached_kernels(trial.sines if parts > 1 else ()):
        for i, part in enumerate(split(batch, parts)):
            last = i + 1 == parts
            with nullcontext() if last else trial.runtime.no_sync(trial.wrapped_model):
                of_part = shares_of(trial, part, counts)
                loss = weighted_sum(trial, of_part)
                loss = loss * trial.runtime.world_size  # workers' gradients are averaged
                if last and (term := trial.penalty()) is not None:
                    loss = loss + term
                trial.scaler.scale(loss).backward()
            shares.append(torch.stack(list(of_part.values())).detach())
    return torch.stack(shares).sum(0)


def weighted_sum(trial: Trial, shares: Mapping[str, Tensor]) -> Tensor:
    """What is minimised: the tasks' losses, over their running means under `optim.loss_norm`, times their weights."""
    weighted_T = torch.stack([trial.tasks[task].weight * share for task, share in shares.items()])
    if trial.loss_norm is not None:
        weighted_T = weighted_T / trial.loss_norm.divisors().to(weighted_T)
    return weighted_T.sum()


def split(batch: Batch, parts: int) -> Iterator[Batch]:
    """Rows of a batch in parts of nearly equal size; nothing is copied."""
    pieces = {name: values.tensor_split(parts) for name, values in batch.items()}
    yield from ({name: of[i] for name, of in pieces.items()} for i in range(parts))


def shares_of(trial: Trial, batch: Batch, counts: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """This batch's share of every task's loss."""
    with autocast(trial):
        predictions = trial.forward(batch["image"])
    full = {task: y.to(trial.dtype) for task, y in predictions.items()}
    return {task: trial.tasks[task].loss.share(full[task], batch[task], counts[task]) for task in counts}


def autocast(trial: Trial) -> torch.autocast:
    """The context of forward passes: mixed precision, if `optim.precision` is one."""
    kind = AUTOCAST.get(trial.config.optim.precision)
    return torch.autocast(trial.runtime.device.type, dtype=kind, enabled=kind is not None)


def to_device(trial: Trial, values: Tensor) -> Tensor:
    """On the trial's device, in its precision."""
    return values.to(trial.runtime.device, trial.dtype if values.is_floating_point() else None)
