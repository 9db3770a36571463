"""The comparison with plain Ray Tune: both really search."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
import yaml

from faar_ray.bench.stock.run_both import comparable
from faar_ray.errors import ConfigError
from faar_ray.tune.space.space import SearchSpace
from tests.commands import run_command

BOTH = [{"name": "delta_m", "goal": "maximize"}, {"name": "trainable_params", "goal": "minimize"}]
SPACE: dict[str, Any] = {
    "version": 1,
    "name": "tiny",
    "base": {
        "data": {"tasks": ["semseg", "normals"], "train_images": 16, "val_images": 8, "test_images": 8},
        "backbone": {"pretrained": False},
        "ranks": {"init_rank": 4},
        "optim": {"epochs": 2, "batch_size": 8, "warmup_steps": 2},
    },
    "parameters": {
        "pdrs.rho_shared": {"min": 0.5, "max": 0.99, "scale": "log1m", "prior": 0.95},
        "optim.lr": {"min": 0.0001, "max": 0.01, "log": True, "prior": 0.001},
    },
    "objectives": BOTH,
    "references": {"semseg": 40.0, "normals": 20.0},
    "search": {"startup_trials": 10},
    "scheduler": {"min_epochs": 1, "reduction": 2},
    "budget": {"trials": 4},
}


def space_with(**sections: object) -> SearchSpace:
    """The small space with sections replaced."""
    return SearchSpace.model_validate(SPACE | sections)


@pytest.mark.parametrize(
    ("changes", "told"),
    [
        ({"search": {"sampler": "random", "startup_trials": 10}}, "search.sampler: must be tpe"),
        ({"search": {"startup_trials": 4}}, "search.startup_trials: must be 10"),
        ({"scheduler": {"type": "median"}}, "scheduler.type: must be asha"),
        ({"objectives": BOTH[:1]}, "objectives: must be several"),
        ({"constraints": ["trainable_params <= 5"]}, "constraints: must be none"),
        ({"warm_start": {"points": [{"optim.lr": 0.002}]}}, "warm_start.points and priors: must set every parameter"),
    ],
)
def test_what_plain_tune_cannot_search_alike_is_refused(changes: dict[str, object], told: str) -> None:
    with pytest.raises(ConfigError, match=told):
        comparable(space_with(**changes))


def test_what_only_our_search_has_is_left_out() -> None:
    search = {"startup_trials": 10, "replicates": {"top": 1, "seeds": 2}}

    space = comparable(space_with(search=search, controls=[{"method": "dora"}]))

    assert space.search.replicates is None
    assert space.controls == ()


@pytest.mark.slow
@pytest.mark.nightly
@pytest.mark.timeout(900)
def test_both_search_and_are_compared(tmp_path: Path) -> None:
    file, out = tmp_path / "space.yaml", tmp_path / "out"
    file.write_text(yaml.safe_dump(SPACE, sort_keys=False))
    arguments = ["stock", str(file), "--seeds", "1", "--out", str(out), "--json"]
    done = run_command("bench", tmp_path, *arguments)

    assert done.returncode == 0, done.stderr
    found = json.loads(done.stdout)
    assert found == json.loads((out / "stock.json").read_text())
    assert [(row["search"], row["trials"]) for row in found["searches"]] == [("faar_ray", 4), ("stock", 4)]
    for row in found["searches"]:
        assert 1 <= row["finished"] <= 4
        assert row["epochs"] <= 4 * 2 and row["epochs"] >= row["finished"] * 2
    assert found["searches"][0]["told_complete_but_stopped"] == 0
    assert found["searches"][1]["told_complete_but_stopped"] == 4 - found["searches"][1]["finished"]
    assert (out / "stock.png").stat().st_size > 10_000
    again = run_command("bench", tmp_path, *arguments)
    assert (again.returncode, again.stderr) == (2, f"--out: must be an empty folder, got {out}\n")
