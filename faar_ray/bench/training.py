"""`bench train`: steps of a real trial from its own data; images/s, what waits for batches, what a GPU does."""

from __future__ import annotations

import argparse
import time
from collections.abc import Iterator
from contextlib import closing
from dataclasses import asdict, dataclass
from itertools import count

import torch
from rich.table import Table
from torch import Tensor

from faar_ray.bench.loading import config_of
from faar_ray.bench.output import print_result
from faar_ray.bench.step.launches import Launches, launches_of, wait_for
from faar_ray.data import check_root, local_data
from faar_ray.train.runtimes.runtime import InProcess
from faar_ray.train.step import train_step
from faar_ray.train.trial import Trial

WARM_UP = 3


@dataclass
class Measured:
    """Of the steps after the first ones."""

    device: str
    images_per_s: float
    waiting_share: float
    """Of the host's time, until a batch is there."""
    launches: Launches
    """Of one more step."""
    busy: float | None
    """Share of a step's time in which a GPU computes; None on a CPU."""


def run(args: argparse.Namespace) -> None:
    """Train, and say what it took.

    Raises:
        ConfigError: faults of the config, or data that are not there.
    """
    config = config_of(args)
    check_root(config.data)
    with closing(Trial(config, InProcess(), local_data(config.data))) as trial:
        trial.model.train()
        measured = measure(trial, args.steps)
    says = (
        f"{measured.images_per_s:.1f} images/s on {measured.device}; {measured.waiting_share:.0%} of the time waits "
        f"for batches; {measured.launches.count:,} {'operators' if measured.busy is None else 'GPU kernels'} per step"
        + ("" if measured.busy is None else f", the GPU is busy {measured.busy:.0%} of the time")
    )
    print_result(args, {**asdict(measured), "says": says}, table_of(measured.launches), says)


def measure(trial: Trial, steps: int) -> Measured:
    """Take the first steps, then `steps` that count, then one that is looked at."""
    device = trial.runtime.device
    batches = endless(trial)
    waited, images, started = 0.0, 0, 0.0
    for step in range(WARM_UP + steps):
        if step == WARM_UP:
            wait_for(device)
            started = time.perf_counter()
        asked = time.perf_counter()
        batch = next(batches)
        if step >= WARM_UP:
            waited += time.perf_counter() - asked
            images += len(batch["image"])
        take(trial, batch, step)
    wait_for(device)
    seconds = time.perf_counter() - started

    batch, last = next(batches), WARM_UP + steps
    launches = launches_of(lambda: take(trial, batch, last), device)
    busy = None if launches.busy_ms is None else min(1.0, launches.busy_ms * steps / 1000 / seconds)
    name = torch.cuda.get_device_name(device) if device.type == "cuda" else "cpu"
    return Measured(name, images / seconds, waited / seconds, launches, busy)


def endless(trial: Trial) -> Iterator[dict[str, Tensor]]:
    """The batches of epoch after epoch."""
    optim = trial.config.optim
    for epoch in count():
        yield from trial.train_data.batches(
            batch_size=optim.batch_size, seed=0, epoch=epoch, train=True, device=trial.runtime.device
        )


def take(trial: Trial, batch: dict[str, Tensor], step: int) -> None:
    """One step; the learning rate follows the config's epochs and stays at its end."""
    trial.policy.sample_mask(0, step)
    train_step(trial, batch, step)


def table_of(launches: Launches) -> Table:
    """The kernels that take longest."""
    table = Table("kernel", "times", "ms per step")
    for name, times, ms in launches.top:
        table.add_row(name[:80], str(times), f"{ms:.2f}")
    return table
