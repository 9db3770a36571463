"""One undisturbed search that all kills are compared with."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest

from faar_ray.bench.faults.campaign import Baseline, FaultResult, inject_one_fault, measure_baseline
from faar_ray.bench.faults.search_harness import SearchHarness, Target
from faar_ray.bench.faults.watch import Trigger
from faar_ray.bench.local_cluster import LocalCluster

InjectFault = Callable[..., FaultResult]


@pytest.fixture(scope="session")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("faults")


@pytest.fixture(scope="session")
def harness(folder: Path) -> SearchHarness:
    return SearchHarness(folder)


@pytest.fixture(scope="session")
def baseline(folder: Path, own_cache: Path) -> Baseline:
    return measure_baseline(folder, workers=1)


@pytest.fixture(scope="session")
def shrunk(baseline: Baseline) -> tuple[str, int]:
    """A trial and an epoch, not its last, whose end changed a rank."""
    return next((trial, at) for trial, epochs in sorted(baseline.shrinks.items()) for at in epochs if at < 3)


@pytest.fixture
def inject(
    harness: SearchHarness, baseline: Baseline, shrunk: tuple[str, int], request: pytest.FixtureRequest
) -> InjectFault:
    """Runs one search with one fault, at a moment of the trial that shrinks."""

    def once(target: Target, moment: str, cluster: LocalCluster | None = None) -> FaultResult:
        trial, epoch = shrunk
        late = 0.5 * baseline.epoch_s if moment == "first epoch" else 0.0
        name = f"{target}-{moment.replace(' ', '-')}"
        return inject_one_fault(harness, name, target, Trigger(moment, trial, epoch, late), baseline, cluster)

    return once
