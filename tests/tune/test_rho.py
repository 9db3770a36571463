"""`rho.yaml` on little data: the same trials and numbers with one trial at a time and with two."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

import pytest

from faar_ray.report.results import read_results
from tests.commands import SOURCE, run_command

pytestmark = [pytest.mark.slow, pytest.mark.timeout(1200)]
SMALL = [
    "data.train_images=20",
    "data.val_images=10",
    "data.test_images=10",
    "optim.warmup_steps=2",
    "references={semseg: 40, human_parts: 30, normals: 20}",
    "search.startup_trials=2",  # so that trials 2 and later use results
    "search.replicates={top: 2, seeds: 2}",
    "budget.trials=8",
]


def rows(folder: Path, concurrent: int) -> list[tuple[Any, ...]]:
    """What the search found, without times and memory."""
    space, run = SOURCE / "search_spaces" / "rho.yaml", f"c{concurrent}"
    arguments = [str(space), *SMALL, f"resources.max_concurrent={concurrent}", "--name", run, "-q"]
    done = run_command("tune", folder, *arguments)
    assert done.returncode == 0, done.stderr
    return [
        (result.trial_id, result.config_id, result.state, result.params, result.epochs, measured(result.metrics))
        for result in read_results(folder / "runs" / run / "results.parquet")
    ]


def measured(metrics: dict[str, float]) -> dict[str, float]:
    return {name: value for name, value in metrics.items() if not name.startswith(("time/", "memory/"))}


@pytest.mark.nightly
@pytest.mark.skipif(len(os.sched_getaffinity(0)) < 2, reason="two trials at once take two cores")
def test_two_trials_at_once_find_what_one_at_a_time_finds(tmp_path: Path) -> None:
    one, two = rows(tmp_path, 1), rows(tmp_path, 2)
    assert len(one) == 10  # eight trials, two controls
    assert two == one
