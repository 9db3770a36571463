"""The training loop; there is no other."""

from __future__ import annotations

import logging
import math
import time
from collections.abc import Generator, Mapping
from contextlib import closing
from functools import partial

import torch
from torch import Tensor

from faar_ray.adapters.sinewich.sine_measure import measure
from faar_ray.data import load_dataset, local_data
from faar_ray.ranks import rank_metrics, sine_metrics
from faar_ray.records import EpochRecord, RankRecord, SineRecord
from faar_ray.train.evaluation import evaluate
from faar_ray.train.gradients.cosines import gradient_cosines
from faar_ray.train.gradients.gradient_pass import gradient_pass
from faar_ray.train.memory import PeakMemory
from faar_ray.train.runtimes.runtime import InProcess, Runtime
from faar_ray.train.step import train_step
from faar_ray.train.trial import Trial
from faar_ray.train.trial_sink import TrialSink
from faar_ray.train.trial_spec import TrialSpec

log = logging.getLogger(__name__)
SKIPPED = "train/skipped"
"""Share of an epoch's steps that changed nothing, because gradients overflowed; only of fp16."""
Epochs = Generator[EpochRecord, None, dict[str, float]]
"""The epochs of a trial; what it returns at its end are the test split's metrics."""


def fit(spec: TrialSpec, runtime: Runtime | None = None) -> Epochs:
    """Train one trial; yields every epoch from 0, those of an earlier, interrupted run first.

    Each record comes after it and its checkpoint are on disk; after the last one the folder holds
    `adapter.safetensors` too. When the generator ends or is closed, the trial's files are complete (see `TrialSink`).
    Iterating beyond the last record reads the test split, once.

    Args:
        spec: the trial; a checkpoint in its folder is resumed.
        runtime: one process by default.

    Returns:
        `test/<task>/<metric>` of every task, and `test/delta_m`; empty without `spec.test`.

    Raises:
        StorageError: the trial's files cannot be read or written.
        NonFiniteLoss: naming step and task.
        NonFiniteGradient: naming step and parameter.
    """
    config, runtime = spec.config, runtime or InProcess()
    data = local_data(config.data, spec.shards_uri, spec.data_root)
    built = Trial(config, runtime, data, spec.checkpoint, spec.betas)
    with TrialSink(spec, runtime) as sink, closing(built) as trial:
        records, trained = sink.resume(trial)
        yield from records
        for epoch in range(len(records), last_epoch(spec)):
            if trained:  # by the parent
                record, trained = end_of_epoch(trial, epoch, trained, spec.references), {}
            else:
                record = run_epoch(trial, epoch, spec.references)
            warn_of_skips(record)
            sink.add(trial, record)
            yield record
        if spec.leave_end and not trained:
            sink.leave_end(trial, last_epoch(spec), training_part(trial, last_epoch(spec)))

    if not spec.test or spec.stop_after is not None:
        return {}
    with closing(load_dataset(data, "test", cached=True)) as test:
        return evaluate(trial, test, split="test", references=spec.test_references)


def last_epoch(spec: TrialSpec) -> int:
    """Epochs that a trial trains to their end."""
    return spec.config.optim.epochs if spec.stop_after is None else spec.stop_after - int(spec.leave_end)


def run_epoch(trial: Trial, epoch: int, references: Mapping[str, float] | None) -> EpochRecord:
    """Train on every image, shrink, evaluate."""
    return end_of_epoch(trial, epoch, training_part(trial, epoch), references)


def training_part(trial: Trial, epoch: int) -> dict[str, float]:
    """Train on every image; the epoch's metrics of it, which a fork takes over (`fork.TRAINED`)."""
    memory = PeakMemory(trial.runtime.device)
    started = time.perf_counter()
    metrics = train_epoch(trial, epoch)
    metrics["time/step_ms"] = 1000 * (time.perf_counter() - started) / trial.steps_per_epoch
    metrics["memory/peak_mb"] = max(trial.runtime.all_gather(memory.mb()))
    return metrics


def end_of_epoch(
    trial: Trial, epoch: int, trained: Mapping[str, float], references: Mapping[str, float] | None
) -> EpochRecord:
    """Shrink and evaluate, after the training of an epoch.

    Args:
        trial: after the training, or restored from a checkpoint of it.
        epoch: 0-based.
        trained: metrics of the training.
        references: for `delta_m`.
    """
    started = time.perf_counter()
    trial.model.train()  # as the last step left it
    ranks = end_epoch(trial, epoch, references)
    metrics = (
        dict(trained) | trial.policy.metrics() | evaluate(trial, trial.val_data, split="val", references=references)
    )
    sines = sine_records(trial, epoch)

    metrics |= trial.trainable_parameters() | rank_metrics(trial.adapters) | sine_metrics(sines)
    training_s = trained["time/step_ms"] * trial.steps_per_epoch / 1000
    metrics["time/epoch_s"] = training_s + time.perf_counter() - started
    return EpochRecord(epoch, metrics, tuple(ranks), tuple(sines))


def train_epoch(trial: Trial, epoch: int) -> dict[str, float]:
    """One pass over the training images; gives `train/loss/<task>`, `train/loss`, their weighted sum, and `SKIPPED`.

    Losses are raw also under `optim.loss_norm`, which minimises others: so trials with and without it can be compared.
    A task's loss is the mean over the steps with labels of it: NaN, and no part of the sum, where no step has any.
    """
    config, runtime = trial.config, trial.runtime
    losses: list[Tensor] = []
    trial.skipped_steps = 0
    trial.model.train()
    order = trial.train_data.batches(
        batch_size=config.optim.batch_size,
        seed=config.seed,
        epoch=epoch,
        train=True,
        worker=runtime.rank,
        workers=runtime.world_size,
        device=runtime.device,
    )
    for step, batch in enumerate(order, start=epoch * trial.steps_per_epoch):
        trial.policy.sample_mask(epoch, step)
        losses.append(torch.stack([*train_step(trial, batch, step).values()]))
    trial.optimizer.zero_grad(set_to_none=True)
    if trial.late_reader is not None:
        trial.late_reader.read()
    if trial.loss_norm is not None:
        trial.runtime.assert_same("running means of losses", trial.loss_norm.divisors())

    mean_T = torch.stack(losses).double().nanmean(0).tolist()
    means = dict(zip(config.data.tasks, mean_T, strict=True))
    parts = [trial.tasks[task].weight * mean for task, mean in means.items() if not math.isnan(mean)]
    skipped = {SKIPPED: trial.skipped_steps / len(losses)} if trial.scaler.is_enabled() else {}
    total = sum(parts) if parts else math.nan
    return {"train/loss": total} | {f"train/loss/{task}": mean for task, mean in means.items()} | skipped


def warn_of_skips(record: EpochRecord) -> None:
    """Warn of an epoch that trained nothing."""
    if record.metrics.get(SKIPPED) == 1.0:
        log.warning(
            "epoch %d: every step was skipped, for its gradients overflow fp16; more epochs lower the loss scale, "
            "optim.precision: bf16 needs none",
            record.epoch,
        )


def end_epoch(trial: Trial, epoch: int, references: Mapping[str, float] | None = None) -> list[RankRecord]:
    """Shrink, after a check that all workers have the same scores; gives the rank trace's rows."""
    trial.runtime.assert_same("importance scores", trial.policy.state_for_agreement())

    before = [id(adapter.A_RI) for adapter in trial.adapters]
    trial.policy.gradient_pass = partial(gradient_pass, trial)
    trial.policy.evaluation = partial(evaluate, trial, trial.val_data, split="val", references=references)
    ranks = trial.policy.end_epoch(epoch, trial.optimizer)
    trial.policy.gradient_pass = trial.policy.evaluation = None
    trial.runtime.assert_same("ranks", torch.tensor([adapter.rank for adapter in trial.adapters]))

    if before != [id(adapter.A_RI) for adapter in trial.adapters]:
        of_all = [p.detach().flatten() for adapter in trial.adapters for p in adapter.parameters()]
        trial.runtime.assert_same("adapters", torch.cat(of_all))
        trial.wrap_model()
    return ranks


def sine_records(trial: Trial, epoch: int) -> list[SineRecord]:
    """Statistics of the sine-modulated bases; with their gradients' cosines every few epochs, and at the end."""
    every, is_last = trial.config.sinewich.gradient_cosine_every, epoch + 1 == trial.config.optim.epochs
    due = every > 0 and (is_last or (epoch + 1) % every == 0)
    cosines = gradient_cosines(trial) if due else {}
    return [record for layer in trial.sines for record in measure(layer, epoch, cosines.get(layer))]
