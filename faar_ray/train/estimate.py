"""How long a trial takes here, from a few steps: what a dry run tells before anything is started."""

from __future__ import annotations

import statistics
import time
from collections.abc import Callable
from contextlib import closing

import torch

from faar_ray.config.paths import folder_of, is_remote
from faar_ray.config.registries import DATASETS
from faar_ray.config.trial import TrialConfig
from faar_ray.data.datasets import SPLITS
from faar_ray.data.shards.shard_set import shards_of
from faar_ray.train.evaluation import batch_size
from faar_ray.train.runtimes.runtime import InProcess
from faar_ray.train.step import train_step
from faar_ray.train.trial import Trial

STEPS = 3
"""Measured, after one that is not."""


def data_is_here(config: TrialConfig) -> bool:
    """Whether this machine can read a trial's data without making or downloading them."""
    data, entry = config.data, DATASETS[config.data.name]
    if data.root and is_remote(data.root):
        return False
    folder = folder_of(data.root)
    if entry.shards is not None:
        shards = shards_of(data.name)
        return all(path.exists() for split in SPLITS for path in shards.paths(data, split, folder))
    return folder is None or folder.is_dir()


def seconds_per_epoch(config: TrialConfig, threads: int = 1) -> float:
    """Seconds of one epoch with its evaluation, by a few steps at full rank, reading included.

    Args:
        config: of a trial whose data are here.
        threads: CPU threads of its worker.

    Raises:
        DataError: the data cannot be read.
    """
    data = config.data.model_copy(update={"loader_workers": 0, "cache": "never"})  # a few samples, none to be kept
    before, state = torch.get_num_threads(), torch.get_rng_state()
    torch.set_num_threads(threads)
    try:
        with closing(Trial(config.without_weights().model_copy(update={"data": data}), InProcess())) as trial:
            return _steps(trial) + _evaluation(trial)
    finally:
        torch.set_num_threads(before)
        torch.set_rng_state(state)


def _steps(trial: Trial) -> float:
    size = trial.config.optim.batch_size
    order = trial.train_data.batches(batch_size=size, seed=0, epoch=0, train=True)
    seconds = []
    trial.model.train()
    for step in range(min(1 + STEPS, trial.steps_per_epoch)):
        trial.policy.sample_mask(0, step)
        seconds.append(_timed(lambda step=step: train_step(trial, next(order), step)))  # type: ignore[misc]
    return statistics.median(seconds[1:] or seconds) * trial.steps_per_epoch


@torch.no_grad()
def _evaluation(trial: Trial) -> float:
    trial.model.eval()
    images = batch_size(trial.config.data.size)
    order = trial.val_data.batches(batch_size=images, seed=0, epoch=0, train=False)
    seconds = _timed(lambda: trial.model(next(order)["image"].to(trial.runtime.device, trial.dtype)))
    return seconds * len(trial.val_data) / min(images, len(trial.val_data))


def _timed(run: Callable[[], object]) -> float:
    started = time.perf_counter()
    run()
    if torch.cuda.is_available():
        torch.cuda.synchronize()
    return time.perf_counter() - started
