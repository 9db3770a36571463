"""The training loop; there is no other."""

from __future__ import annotations

import time
from collections.abc import Generator, Mapping
from pathlib import Path
from typing import Any

import torch

from faar_ray.adapters.sinewich.sine_measure import measure
from faar_ray.config.trial import TrialConfig
from faar_ray.data import batches, load_dataset
from faar_ray.data.shards.shard_store import download_shards
from faar_ray.export.adapter_file import write_adapter
from faar_ray.ranks import rank_metrics, sine_metrics
from faar_ray.records import EpochRecord, RankRecord, SineRecord
from faar_ray.storage.remote_copy import NO_REMOTE, RemoteCopy
from faar_ray.storage.run_location import trial_paths
from faar_ray.tasks import TASKS
from faar_ray.tracking.files.trial_files import clear_leftovers_of, write_config, write_epoch_files
from faar_ray.train.evaluation import evaluate
from faar_ray.train.gradients import gradient_cosines
from faar_ray.train.memory import PeakMemory
from faar_ray.train.runtimes.runtime import InProcess, Runtime, on_rank_zero
from faar_ray.train.step import train_step
from faar_ray.train.trial import Trial

Epochs = Generator[EpochRecord, None, dict[str, float]]
"""The epochs of a trial; what it returns at its end are the test split's metrics."""


def fit(
    config: TrialConfig,
    folder: Path,
    *,
    trial_id: str,
    trace: Path,
    references: Mapping[str, float] | None = None,
    test_references: Mapping[str, float] | None = None,
    test: bool = False,
    keep_checkpoints: int = 2,
    runtime: Runtime | None = None,
    twin: RemoteCopy = NO_REMOTE,
) -> Epochs:
    """Train one trial; yields every epoch from 0, those of an earlier, interrupted run first.

    Each record comes after its checkpoint, all epochs' metrics (`epochs.parquet`) and the whole rank trace (with Free
    Sinewich the sine trace too) are on disk; after the last one the folder holds `adapter.safetensors` too. Who goes on
    after the last record has the test split read, once.

    Args:
        config: the trial.
        folder: of the trial; a checkpoint in it is resumed.
        trial_id: name in the rank trace.
        trace: Parquet file of the rank trace.
        references: single-task metric of each task; with it records hold `delta_m`.
        test_references: the same on the test split, for `test/delta_m`.
        test: whether to read the test split at the end.
        keep_checkpoints: how many stay on disk.
        runtime: one process by default.
        twin: of folder and trace in object storage.

    Returns:
        `test/<task>/<metric>` of every task, and `test/delta_m`; empty without `test`.

    Raises:
        StorageError: folder, trace or twin cannot be written.
        NonFiniteLoss: naming step and task.
    """
    runtime = runtime or InProcess()
    on_rank_zero(runtime, twin.pull)
    trial = Trial(config, runtime)
    trial.restore(folder)
    on_rank_zero(runtime, lambda: clear_leftovers_of(folder, trace))
    on_rank_zero(runtime, lambda: write_config(folder, config))
    on_rank_zero(runtime, lambda: write_epoch_files(folder, trace, trial_id, trial.records))
    yield from list(trial.records)
    for epoch in range(len(trial.records), config.optim.epochs):
        memory = PeakMemory(runtime.device)
        started = time.perf_counter()
        losses = train_epoch(trial, epoch)
        trained = time.perf_counter()
        peak = max(runtime.all_gather(memory.mb()))
        ranks = end_epoch(trial, epoch)
        metrics = losses | evaluate(trial, trial.val_data, split="val", references=references)
        sines = sine_records(trial, epoch)
        metrics |= trial.trainable_parameters() | rank_metrics(trial.adapters) | sine_metrics(sines)
        metrics["time/step_ms"] = 1000 * (trained - started) / trial.steps_per_epoch
        metrics["time/epoch_s"] = time.perf_counter() - started
        metrics["memory/peak_mb"] = peak
        trial.records.append(EpochRecord(epoch, metrics, tuple(ranks), tuple(sines)))
        if epoch + 1 == config.optim.epochs:  # before the checkpoint that makes the trial count as finished
            on_rank_zero(runtime, lambda: write_adapter(folder / "adapter.safetensors", trial.model, config))
        trial.save(folder, keep=keep_checkpoints)
        on_rank_zero(runtime, lambda: write_epoch_files(folder, trace, trial_id, trial.records))
        on_rank_zero(runtime, twin.push)
        yield trial.records[-1]
    if not test:
        return {}
    return evaluate(trial, load_dataset(config.data, "test"), split="test", references=test_references)


def fit_spec(spec: Mapping[str, Any], runtime: Runtime | None = None) -> Epochs:
    """`fit` of a trial given as plain values, as they travel between processes."""
    place, config = trial_paths(spec), TrialConfig.model_validate(spec["config"])
    if spec.get("data") and not config.data.root:
        download_shards(config.data, spec["data"], "storage.path")
    return fit(
        config,
        place.folder,
        trial_id=spec["trial_id"],
        trace=place.trace,
        references=spec["references"],
        test_references=spec["test_references"],
        test=spec["test"],
        keep_checkpoints=spec["keep_checkpoints"],
        runtime=runtime,
        twin=place.remote_copy,
    )


def train_epoch(trial: Trial, epoch: int) -> dict[str, float]:
    """One pass over the training images; returns the mean losses, `train/loss` and `train/loss/<task>`."""
    config, runtime = trial.config, trial.runtime
    totals: dict[str, float] = {}
    trial.model.train()
    order = batches(
        trial.train_data,
        batch_size=config.optim.batch_size,
        seed=config.seed,
        epoch=epoch,
        train=True,
        worker=runtime.rank,
        workers=runtime.world_size,
    )
    for step, batch in enumerate(order, start=epoch * trial.steps_per_epoch):
        trial.policy.sample_mask(epoch, step)
        losses = train_step(trial, batch, step)
        whole = torch.stack([TASKS[task].weight * value for task, value in losses.items()]).sum()
        for name, value in {"train/loss": whole, **{f"train/loss/{t}": v for t, v in losses.items()}}.items():
            totals[name] = totals.get(name, 0.0) + value.item()
    trial.optimizer.zero_grad(set_to_none=True)
    return {name: total / trial.steps_per_epoch for name, total in totals.items()}


def end_epoch(trial: Trial, epoch: int) -> list[RankRecord]:
    """Shrink; all workers must have scored and decided alike."""
    trial.runtime.assert_same("importance scores", trial.policy.state_for_agreement())
    before = [id(adapter.A_RI) for adapter in trial.adapters]
    ranks = trial.policy.end_epoch(epoch, trial.optimizer)
    trial.runtime.assert_same("ranks", torch.tensor([adapter.rank for adapter in trial.adapters]))
    if before != [id(adapter.A_RI) for adapter in trial.adapters]:
        trial.wrap_model()
    return ranks


def sine_records(trial: Trial, epoch: int) -> list[SineRecord]:
    """What became of sine-modulated bases; their gradients every few epochs, and at the end."""
    every, last = trial.config.sinewich.gradient_cosine_every, epoch + 1 == trial.config.optim.epochs
    due = every > 0 and (last or (epoch + 1) % every == 0)
    cosines = gradient_cosines(trial) if due else {}
    return [record for layer in trial.sines for record in measure(layer, epoch, cosines.get(layer))]
