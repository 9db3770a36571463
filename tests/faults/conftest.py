"""One undisturbed search that all kills are compared with."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest

from faar_ray.bench.faults.campaign import FaultResult, Undisturbed, inject_one_fault, measure
from faar_ray.bench.faults.search_harness import SearchHarness, Target
from faar_ray.bench.faults.watch import Trigger
from faar_ray.bench.local_cluster import LocalCluster

Strike = Callable[..., FaultResult]


@pytest.fixture(scope="session")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("faults")


@pytest.fixture(scope="session")
def arena(folder: Path) -> SearchHarness:
    return SearchHarness(folder)


@pytest.fixture(scope="session")
def whole(folder: Path, own_cache: Path) -> Undisturbed:
    return measure(folder, workers=1)


@pytest.fixture(scope="session")
def shrunk(whole: Undisturbed) -> tuple[str, int]:
    """A trial and an epoch, not its last, whose end changed a rank."""
    return next((trial, at) for trial, epochs in sorted(whole.shrinks.items()) for at in epochs if at < 3)


@pytest.fixture
def strike(arena: SearchHarness, whole: Undisturbed, shrunk: tuple[str, int], request: pytest.FixtureRequest) -> Strike:
    """Strikes one search, at a moment of the trial that shrinks."""

    def once(target: Target, moment: str, cluster: LocalCluster | None = None) -> FaultResult:
        trial, epoch = shrunk
        late = 0.5 * whole.epoch_s if moment == "first epoch" else 0.0
        name = f"{target}-{moment.replace(' ', '-')}"
        return inject_one_fault(arena, name, target, Trigger(moment, trial, epoch, late), whole, cluster)

    return once
