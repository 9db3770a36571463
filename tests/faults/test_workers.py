"""kill -9 of a worker of a trial that has two, and of that trial's own process."""

from __future__ import annotations

import pytest

from faar_ray.bench.faults.campaign import Baseline, inject_one_fault, measure_baseline
from faar_ray.bench.faults.search_harness import SearchHarness, Target
from faar_ray.bench.faults.watch import Moment, Trigger

# one real kill of a worker is in tests/train/runtimes/test_ray_train.py
pytestmark = [pytest.mark.faults, pytest.mark.nightly, pytest.mark.timeout(900)]


@pytest.fixture(scope="module")
def pair(tmp_path_factory: pytest.TempPathFactory) -> SearchHarness:
    return SearchHarness(tmp_path_factory.mktemp("pair"), workers=2)


@pytest.fixture(scope="module")
def both(pair: SearchHarness) -> Baseline:
    return measure_baseline(pair.folder, workers=2)


@pytest.mark.parametrize(
    ("target", "moment"),
    [
        ("worker", "after a shrink"),
        ("worker", "first epoch"),
        ("worker", "while writing a checkpoint"),
        ("trial", "first epoch"),
    ],
)
def test_a_kill_among_two_workers_loses_one_epoch_at_most(
    pair: SearchHarness, both: Baseline, target: Target, moment: Moment
) -> None:
    trial, epoch = next((name, at) for name, epochs in sorted(both.shrinks.items()) for at in epochs if at < 3)
    trigger = Trigger(moment, trial, epoch, 0.5 * both.epoch_s if moment == "first epoch" else 0.0)
    kill = inject_one_fault(pair, f"{target}-{moment.replace(' ', '-')}", target, trigger, both, None)
    assert kill.passed(exactly=False), kill
