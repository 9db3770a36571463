"""A machine is lost: its trial goes on elsewhere, and the loss is not the trial's."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from faar_ray.bench.faults.campaign import Baseline, FaultResult, inject_one_fault
from faar_ray.bench.faults.search_harness import SearchHarness, Target
from faar_ray.bench.faults.watch import Moment, Trigger
from faar_ray.bench.local_cluster import LocalCluster, local_cluster

pytestmark = [pytest.mark.faults, pytest.mark.timeout(900)]


@pytest.fixture(scope="module")
def cluster() -> Iterator[LocalCluster]:
    with local_cluster(2) as started:
        yield started


@pytest.mark.parametrize(
    ("target", "moment"),
    [
        ("raylet", "after a shrink"),
        pytest.param("node", "first epoch", marks=pytest.mark.nightly),
        pytest.param("node", "while writing a checkpoint", marks=pytest.mark.nightly),
    ],
)
def test_a_lost_node_loses_one_epoch_at_most(
    inject: Callable[..., FaultResult], cluster: LocalCluster, target: Target, moment: Moment
) -> None:
    kill = inject(target, moment, cluster)
    cluster.replace_dead()
    assert kill.passed(exactly=True), kill


def test_a_lost_node_takes_no_retry_away(
    folder: Path, baseline: Baseline, shrunk: tuple[str, int], cluster: LocalCluster
) -> None:
    harness = SearchHarness(folder, file="no_retry.yaml", failure={"max_retries": 0, "max_failures": 0})
    trigger = Trigger("after a shrink", *shrunk, 0.0)
    kill = inject_one_fault(harness, "no-retry", "node", trigger, baseline, cluster)
    assert kill.passed(exactly=True), kill
