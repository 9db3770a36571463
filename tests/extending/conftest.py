"""Runs a section's code of docs/extending.md, and trains tiny trials with what it adds."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator
from itertools import count
from pathlib import Path
from typing import Any

import pytest

from faar_ray.config.registries import ADAPTERS, DATASETS, RANK_POLICIES
from faar_ray.config.trial import TrialConfig
from faar_ray.models.backbone import BACKBONES
from faar_ray.records import EpochRecord
from faar_ray.storage.run_location import RunLocation
from faar_ray.train.fit import fit
from faar_ray.train.trial_spec import TrialSpec

GUIDE = (Path(__file__).parents[2] / "docs" / "extending.md").read_text()
SMALL: dict[str, Any] = {
    "data": {"train_images": 16, "val_images": 8, "test_images": 8, "image_size": 32, "tasks": ["semseg", "normals"]},
    "backbone": {"pretrained": False},
    "ranks": {"init_rank": 4},
    "optim": {"epochs": 2, "batch_size": 8, "lr": 5e-3, "warmup_steps": 1},
}


@pytest.fixture
def guide() -> Iterator[Callable[[str], dict[str, Any]]]:
    """Runs the code of a section as it stands there; gives the names that it defines."""
    registries: tuple[dict[str, Any], ...] = (ADAPTERS, RANK_POLICIES, DATASETS, BACKBONES)
    shipped = [dict(registry) for registry in registries]

    def run_section(title: str) -> dict[str, Any]:
        section = GUIDE.split(f"\n## {title}\n")[1].split("\n## ")[0]
        (code,) = re.findall(r"```python\n(.*?)```", section, re.DOTALL)
        names: dict[str, Any] = {"__name__": "my_method"}
        exec(compile(code, "docs/extending.md", "exec"), names)
        return names

    yield run_section
    for registry, entries in zip(registries, shipped, strict=True):
        registry.clear()
        registry.update(entries)


@pytest.fixture
def train(tmp_path: Path) -> Callable[..., list[EpochRecord]]:
    """Trains a tiny trial in a new folder; gives its records."""
    numbers = count()

    def run(**dotted: Any) -> list[EpochRecord]:
        config, folder = TrialConfig.resolve(SMALL, **dotted), tmp_path / str(next(numbers))
        return list(fit(TrialSpec("t", config, RunLocation(folder))))

    return run
