"""Photographs that loader processes read inside Ray's actors."""

from __future__ import annotations

import json
from contextlib import suppress
from pathlib import Path
from typing import Any

import psutil
import pytest
import yaml

from faar_ray.config.trial import TrialConfig
from faar_ray.storage.run_location import RunLocation
from faar_ray.train.fit import fit
from faar_ray.train.trial_spec import TrialSpec

from ...commands import run_tune
from ...data.photographs.trees import nyud_tree
from ..conftest import TINY

MARK = "FAAR_RAY_TEST_OF_LOADER_PROCESSES"
ENDS_WITHIN_S = 60


def base(root: Path, loader_workers: int) -> dict[str, Any]:
    data = {"name": "nyud", "root": str(root), "tasks": ["semseg", "normals"], "image_size": [32, 64]}
    return {
        "data": {**data, "protocol": "papers", "loader_workers": loader_workers},
        "backbone": {"pretrained": False},
        "ranks": {"init_rank": 4},
        "optim": {"epochs": 2, "batch_size": 4, "warmup_steps": 1},
    }


def left_processes(value: str) -> list[psutil.Process]:
    """Those that carry the search's mark in their environment."""
    found = []
    for process in psutil.process_iter():
        with suppress(psutil.Error):
            if process.environ().get(MARK) == value:
                found.append(process)
    return found


@pytest.mark.slow
def test_a_trial_in_an_actor_learns_what_it_learns_without_processes_and_none_is_left(tmp_path: Path) -> None:
    root = nyud_tree(tmp_path / "nyud", train=10)
    space = {**TINY, "base": base(root, 2), "parameters": {"optim.lr": {"values": [1e-3]}}, "budget": {"trials": 1}}
    space |= {"search": {"sampler": "grid"}, "scheduler": {"type": "none"}, "tracking": {"uri": "sqlite:///mlflow.db"}}
    (tmp_path / "space.yaml").write_text(yaml.safe_dump(space, sort_keys=False))
    finished = run_tune(tmp_path, "--json", env={MARK: str(tmp_path)})
    assert finished.returncode == 0, finished.stderr
    found = json.loads(finished.stdout.splitlines()[-1])["best"][0]["metrics"]

    config = TrialConfig.resolve(base(root, 0), **{"optim.lr": 1e-3})
    *_, alone = fit(TrialSpec("alone", config, RunLocation(tmp_path / "alone")))
    learned = {name: value for name, value in alone.metrics.items() if name.startswith(("val/", "train/loss"))}
    assert len(learned) > 4
    assert {name: found[name] for name in learned} == learned

    _, alive = psutil.wait_procs(left_processes(str(tmp_path)), timeout=ENDS_WITHIN_S)
    assert alive == []


@pytest.mark.slow
def test_a_damaged_photograph_fails_the_trial_by_its_name(tmp_path: Path) -> None:
    root = nyud_tree(tmp_path / "nyud", train=10)
    (root / "images" / "train0004.jpg").write_bytes(b"\xff\xd8\xff\xe0 cut off")
    space = {**TINY, "base": base(root, 2), "budget": {"trials": 1}, "tracking": {"uri": "sqlite:///mlflow.db"}}
    (tmp_path / "space.yaml").write_text(yaml.safe_dump(space, sort_keys=False))
    finished = run_tune(tmp_path, "--json")
    assert finished.returncode in (3, 4), finished.stderr
    assert f"{root / 'images' / 'train0004.jpg'}: cannot be read as a picture" in finished.stdout + finished.stderr
    assert "Traceback" not in finished.stdout + finished.stderr
