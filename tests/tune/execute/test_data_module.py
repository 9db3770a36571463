"""Searches on a data set of somebody's own module: every process that trains imports it."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import yaml
from ray.cluster_utils import Cluster

from ...commands import SOURCE, environment, run_command, run_tune
from ..conftest import TINY

DISCS = """
import torch

from faar_ray.data import register
from faar_ray.seeding import private


class Discs:
    def __init__(self, config, split):
        self.split, self.images = split, config.val_images

    def __len__(self):
        return self.images

    def sample(self, index, names):
        x, y, radius = torch.rand(3, generator=private("discs", self.split, index)).tolist()
        rows, columns = torch.meshgrid(*[torch.linspace(0, 1, 32)] * 2, indexing="ij")
        disc_HW = (rows - y) ** 2 + (columns - x) ** 2 < radius**2
        far = None if index % 3 == 0 else (1.0 + disc_HW)[None]
        return {"image": (255 * disc_HW).byte().expand(3, -1, -1), "shape": disc_HW.byte(), "far_off": far}


register("discs", Discs, tasks={"shape": "segmentation", "far_off": "regression"}, classes={"shape": ("no", "yes")})
"""
SPACE: dict[str, Any] = {
    **TINY,
    "name": "discs",
    "base": {
        **TINY["base"],
        "data": {"module": "my_data.discs", "name": "discs", "image_size": 32, "val_images": 8},
        "optim": {"epochs": 1, "batch_size": 8, "warmup_steps": 1},
    },
    "objectives": [{"name": "val/far_off/rmse", "goal": "minimize"}],
    "references": {"shape": 50.0, "far_off": 1.0},
    "scheduler": {"type": "none"},
    "budget": {"trials": 1},
    "tracking": {"uri": "sqlite:///mlflow.db"},
}


def write_project(folder: Path, package: Path) -> None:
    """A search space in a folder, and a package with the data set."""
    (folder / "space.yaml").write_text(yaml.safe_dump(SPACE, sort_keys=False))
    package.mkdir(parents=True)
    (package / "discs.py").write_text(DISCS)
    (package / "__init__.py").write_text("")


def outcome_of(finished: subprocess.CompletedProcess[str]) -> dict[str, Any]:
    """The JSON line of a search that came to its end."""
    assert finished.returncode == 0, finished.stderr
    outcome: dict[str, Any] = json.loads(finished.stdout.splitlines()[-1])
    return outcome


def test_the_command_finds_a_module_in_the_current_directory(tmp_path: Path) -> None:
    write_project(tmp_path, tmp_path / "my_data")
    finished = run_tune(tmp_path, "--dry-run")
    assert finished.returncode == 0, finished.stderr
    assert "val/far_off/rmse" in finished.stdout


def test_a_module_that_cannot_be_imported_is_a_fault_with_its_place(tmp_path: Path) -> None:
    write_project(tmp_path, tmp_path / "my_data")
    (tmp_path / "my_data" / "discs.py").write_text("import nothing_like_this\n")
    finished = run_tune(tmp_path, "--dry-run")
    assert finished.returncode == 2
    assert "base.data.module" in finished.stderr or "data.module: must be a Python module" in finished.stderr
    assert "space.yaml:" in finished.stderr and "nothing_like_this" in finished.stderr
    assert "Traceback" not in finished.stderr


@pytest.mark.slow
def test_trials_import_what_the_driver_found_on_its_own_path(tmp_path: Path) -> None:
    write_project(tmp_path, tmp_path / "elsewhere" / "my_data")
    (tmp_path / "run.py").write_text(
        "import sys\nsys.path.append('elsewhere')\n"
        "from faar_ray.tune.__main__ import main\n"
        "if __name__ == '__main__':\n    sys.exit(main(['space.yaml', '--json']))\n"
    )
    finished = subprocess.run(
        [sys.executable, "run.py"], cwd=tmp_path, env=environment(), capture_output=True, text=True, check=False
    )
    outcome = outcome_of(finished)
    assert outcome["trials"]["complete"] == 1
    assert {"val/shape/miou", "val/far_off/rmse", "train/loss/far_off"} <= outcome["best"][0]["metrics"].keys()

    (trial,) = (tmp_path / "runs" / "discs" / "trials").iterdir()
    picture = tmp_path / "runs" / "discs" / "report" / "index.html"
    assert "far_off" in picture.read_text()
    arguments = (str(trial), str(_photograph(tmp_path)), "--out", str(tmp_path / "pictures"))
    predicted = run_command("predict", tmp_path, *arguments, env={"PYTHONPATH": f"{SOURCE}{os.pathsep}elsewhere"})
    assert predicted.returncode == 0, predicted.stderr
    assert sorted(path.name for path in (tmp_path / "pictures").iterdir()) == ["street_far_off.png", "street_shape.png"]


def _photograph(folder: Path) -> Path:
    from PIL import Image

    Image.new("RGB", (40, 30), "teal").save(folder / "street.png")
    return folder / "street.png"


@pytest.mark.cluster
def test_the_package_travels_to_machines_that_do_not_have_it(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    write_project(tmp_path, tmp_path / "elsewhere" / "my_data")
    monkeypatch.chdir("/")
    cluster = Cluster(initialize_head=True, head_node_args={"num_cpus": 2, "include_dashboard": False})
    try:
        path = {"PYTHONPATH": os.pathsep.join([str(SOURCE), str(tmp_path / "elsewhere")])}
        finished = run_tune(tmp_path, "--json", "--address", str(cluster.address), env=path)
    finally:
        cluster.shutdown()
    assert outcome_of(finished)["trials"]["complete"] == 1
