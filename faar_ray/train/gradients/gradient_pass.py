"""Gradients of training batches without any training: what a rank policy rotates and scores components by."""

from __future__ import annotations

import math
from collections.abc import Iterator
from contextlib import contextmanager
from itertools import count, islice

import torch
from torch.nn.utils import get_total_norm

from faar_ray.seeding import seed_of
from faar_ray.train.finite import check_losses, largest_entries, overflow, worst
from faar_ray.train.step import Batch, accumulated, counts_of, to_device
from faar_ray.train.trial import Trial, random_states, set_random_states


def gradient_pass(trial: Trial, epoch: int, batches: int) -> Iterator[None]:
    """See `ranks.GradientPass`; forward passes are those of training, drop-outs and precision included.

    Raises:
        NonFiniteLoss: naming the batch, as a step, and task.
        NonFiniteGradient: naming the batch and parameter; under fp16 only if a loss scale of 1 overflows too.
    """
    with _left_as_it_was(trial):
        torch.manual_seed(seed_of(trial.config.seed, "scores", epoch, trial.runtime.rank))
        for number, batch in enumerate(islice(_orders(trial, epoch), batches)):
            _backward(trial, {name: to_device(trial, values) for name, values in batch.items()}, number)
            yield


def _orders(trial: Trial, epoch: int) -> Iterator[Batch]:
    """Training batches of private orders, one pass after another; the order of training is not touched."""
    config, runtime = trial.config, trial.runtime
    for number in count():
        yield from trial.train_data.batches(
            batch_size=config.optim.batch_size,
            seed=seed_of(config.seed, "scores", epoch),
            epoch=number,
            train=True,
            worker=runtime.rank,
            workers=runtime.world_size,
            device=runtime.device,
        )


def _backward(trial: Trial, batch: Batch, number: int) -> None:
    """Leave a batch's gradients in the parameters; under fp16 with a lower loss scale, until they are finite."""
    counts = counts_of(trial, batch)
    while True:
        trial.optimizer.zero_grad(set_to_none=True)
        losses_T = trial.runtime.all_reduce_sum(accumulated(trial, batch, counts, trial.micro_batches(number)))
        trial.scaler.unscale_(trial.optimizer)
        parameters = [p for group in trial.optimizer.param_groups for p in group["params"] if p.grad is not None]
        norm = get_total_norm([p.grad for p in parameters if p.grad is not None])
        *losses, total = torch.cat([losses_T, norm[None]]).tolist()
        check_losses(number, trial.config.data.tasks, losses)
        if math.isfinite(total):
            trial.scaler.update()
            return

        name, largest = worst(trial.model, parameters, largest_entries(parameters))
        if not trial.scaler.is_enabled() or math.isfinite(largest) or trial.scaler.get_scale() <= 1:
            raise overflow(number, name, largest)
        trial.scaler.update()  # to half the scale


@contextmanager
def _left_as_it_was(trial: Trial) -> Iterator[None]:
    """Training mode within; afterwards buffers, mode, loss scale and random generators are as they were."""
    model, scaler, training, states = trial.model, trial.scaler, trial.model.training, random_states()
    buffers = {name: buffer.clone() for name, buffer in model.named_buffers()}
    trial.scaler = torch.amp.GradScaler(
        trial.runtime.device.type, init_scale=scaler.get_scale(), enabled=scaler.is_enabled()
    )
    model.train()
    try:
        yield
    finally:
        trial.scaler = scaler
        trial.optimizer.zero_grad(set_to_none=True)
        with torch.no_grad():
            for name, buffer in model.named_buffers():
                if not torch.equal(buffer, buffers[name]):
                    buffer.copy_(buffers[name])
        model.train(training)
        set_random_states(states)
