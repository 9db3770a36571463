"""Searches whose trials have two workers each, on a cluster with four places, with and without Ray's dashboard."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest
from ray.cluster_utils import Cluster

from faar_ray.report.results import read_results

pytestmark = [pytest.mark.slow, pytest.mark.timeout(900)]
TWO = {"workers": 2}


def tune(folder: Path, *arguments: str) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-m", "faar_ray.tune", "space.yaml", *arguments]
    env = {**os.environ, "PYTHONPATH": str(Path(__file__).parents[3])}
    return subprocess.run(command, cwd=folder, env=env, capture_output=True, text=True, timeout=800, check=False)


@pytest.mark.parametrize(("dashboard", "trials"), [(True, 8), (False, 3)])
def test_trials_of_two_workers_finish_on_four_places(
    dashboard: bool, trials: int, tmp_path: Path, space_file: Callable[..., Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("RAY_worker_niceness", "0")  # else the workers starve wherever anything else runs
    space_file(tmp_path / "space.yaml", resources=TWO, budget={"trials": trials}, base={"optim": {"epochs": 2}})
    cluster = Cluster(True, head_node_args={"num_cpus": 4, "include_dashboard": dashboard})
    try:
        done = tune(tmp_path, "--address", cluster.address, "--json", "-q")
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
        done = tune(tmp_path, "--address", cluster.address)
    finally:
        cluster.shutdown()
    assert done.returncode == 2
    assert "workers: 5 of 1 CPU each, 4 would fit" in done.stderr
    assert not (tmp_path / "runs" / "tiny").exists()
