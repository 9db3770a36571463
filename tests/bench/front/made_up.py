"""Runs of the studies' search spaces that were not trained: their files, with results from a formula."""

from __future__ import annotations

import json
import math
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import yaml

from faar_ray.bench.front.stages import Space
from faar_ray.config.trial import config_id
from faar_ray.records import TrialResult
from faar_ray.report.results import write_results
from faar_ray.tune.space.space import SearchSpace

Formula = Callable[[Mapping[str, Any], int], tuple[float, float]]
"""(parameters, seed) -> (delta_m, adapter parameters)."""


def write_run(runs: Path, raw: Space, formula: Formula) -> None:
    """The folder of a finished run of a list of points."""
    space, folder = SearchSpace.model_validate(raw), runs / raw["name"]
    folder.mkdir(parents=True)
    points, results = space.planned(), []
    rows = len(space.warm_start.points)
    first = int(raw["base"]["seed"])
    for number, point in enumerate(points):
        seed = first + number // rows
        quality, size = formula(point, seed)
        metrics = {"delta_m": quality, "test/delta_m": quality - 0.5, "params/adapters": size}
        name = config_id(space.trial_config(point))
        results.append(
            TrialResult(f"t{number:03d}-s{seed}", name, seed, "trial", "COMPLETE", dict(point), metrics, 30.0, 6)
        )
    write_results(folder / "results.parquet", results)
    (folder / "space.yaml").write_text(yaml.safe_dump(raw, sort_keys=False))
    objectives = [goal.model_dump() for goal in space.objectives]
    facts = {"name": space.name, "tracking_uri": "sqlite:///mlflow.db", "parent_run_id": "", "objectives": objectives}
    (folder / "run.json").write_text(json.dumps(facts))


SIZES: dict[int, float] = {1: 33_984, 2: 56_160, 4: 100_512, 8: 189_216, 12: 277_920, 16: 366_624}
FAAR: dict[float, float] = {0.3: 40_000, 0.5: 63_000, 0.8: 174_000, 0.95: 305_000, 0.99: 365_000}


def as_measured(point: Mapping[str, Any], seed: int) -> tuple[float, float]:
    """About what was measured: fixed ranks lose below 16, spectral ones less, FAAR most; seeds differ by the same."""
    wobble = math.sin(7 * seed) + 0.4 * math.sin(13 * seed + 5 * len(repr(sorted(point.items(), key=repr))))
    kind = point["ranks.kind"]
    if kind == "fixed":
        size = SIZES[point.get("ranks.init_rank", 16)]
        return -2.8 * math.log(366_624 / size) * 0.75 + wobble, size
    if kind == "pdrs":
        rho = point["pdrs.rho_shared"]
        size = FAAR[rho] * (0.5 if point.get("pdrs.basis") == "spectral" else 1.0)
        return -2.3 * math.log(366_624 / size) - 1 + wobble, size + 300 * seed
    size = point["ranks.budget"] - 60
    longer = 0.4 if point.get("spectral.cut_epoch") is None else 0.0
    loss = 0.6 * math.log(366_624 / size) ** 1.5 + longer * math.log(366_624 / size)
    return -loss + wobble, size
