"""Searches whose trials have two workers each, on a cluster with four places, with and without Ray's dashboard."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path

import pytest
from ray.cluster_utils import Cluster

from faar_ray.report.results import read_results
from tests.commands import run_tune

pytestmark = [pytest.mark.slow, pytest.mark.timeout(900)]
TWO = {"workers": 2}


@pytest.mark.parametrize(
    ("dashboard", "trials"),
    [(True, 3), *(pytest.param(*long, marks=pytest.mark.nightly) for long in ((False, 3), (True, 8)))],
)
def test_trials_of_two_workers_finish_on_four_places(
    dashboard: bool, trials: int, tmp_path: Path, space_file: Callable[..., Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("RAY_worker_niceness", "0")  # else the workers starve wherever anything else runs
    space_file(tmp_path / "space.yaml", resources=TWO, budget={"trials": trials}, base={"optim": {"epochs": 2}})
    cluster = Cluster(True, head_node_args={"num_cpus": 4, "include_dashboard": dashboard})
    try:
        done = run_tune(tmp_path, "--address", cluster.address, "--json", "-q")
    finally:
        cluster.shutdown()
    assert done.returncode == 0, done.stderr
    outcome = json.loads(done.stdout)
    assert sum(outcome["trials"].values()) == trials
    assert outcome["trials"]["failed"] == 0
    assert len(read_results(tmp_path / "runs" / "tiny" / "results.parquet")) == trials


def test_a_trial_with_more_workers_than_the_cluster_holds_is_refused_before_it_waits(
    tmp_path: Path, space_file: Callable[..., Path]
) -> None:
    space_file(tmp_path / "space.yaml", resources={"workers": 5})
    cluster = Cluster(True, head_node_args={"num_cpus": 4, "include_dashboard": False})
    try:
        done = run_tune(tmp_path, "--address", cluster.address)
    finally:
        cluster.shutdown()
    assert done.returncode == 2
    assert "workers: 5 of 1 CPU each, 4 would fit" in done.stderr
    assert not (tmp_path / "runs" / "tiny").exists()
