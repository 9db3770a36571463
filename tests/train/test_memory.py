"""Peak memory of an epoch, in a process that other trials used before."""

from __future__ import annotations

import os
from collections.abc import Callable
from multiprocessing import get_context
from pathlib import Path

import pytest
import torch

from faar_ray.train import memory
from faar_ray.train.memory import MARKS, PeakMemory, keep_freed_memory

CPU = torch.device("cpu")
BLOCK = 64 * 2**18
"""float32 values of 64 MiB."""
pytestmark = pytest.mark.skipif(not os.access(MARKS, os.W_OK), reason="no /proc/self/clear_refs")


def in_fresh_process(measure: Callable[[], list[float]]) -> list[float]:
    with get_context("spawn").Pool(1) as pool:
        return pool.apply(measure)


def one_small_after_large() -> list[float]:
    """Peaks of a small, a large and again a small trial, over what was in use at the start."""
    keep_freed_memory()
    idle, peaks = PeakMemory(CPU).mb(), []
    for blocks in (1, 8, 1):
        meter = PeakMemory(CPU)
        for _ in range(2):  # what a step frees the next one takes
            stored = [torch.ones(BLOCK // 16) for _ in range(16 * blocks)]
            del stored
        peaks.append(meter.mb() - idle)
    return peaks


def without_a_mark() -> list[float]:
    memory.MARKS = Path("/nowhere/clear_refs")
    return one_small_after_large()


@pytest.mark.parametrize("measure", [one_small_after_large, without_a_mark])
def test_the_peak_of_an_earlier_trial_does_not_count(measure: Callable[[], list[float]]) -> None:
    first, large, second = in_fresh_process(measure)

    assert large - second == pytest.approx(448, abs=50)
    assert second == pytest.approx(first, abs=50)


@pytest.mark.gpu
def test_on_an_accelerator_it_is_what_torch_allocated() -> None:
    device = torch.device("cuda")
    large = torch.ones(8 * BLOCK, device=device)
    del large
    meter = PeakMemory(device)
    before = torch.cuda.memory_allocated(device) / 2**20
    stored = torch.ones(BLOCK, device=device)
    del stored

    assert meter.mb() - before == pytest.approx(64, abs=3)
